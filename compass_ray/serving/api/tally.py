"""One request in the statistics: begun once, ended once, by whichever end comes first.

Key property: however a request ends, answered, refused before or in the middle of its stream, or left by its client, it counts
as exactly one of these. COMPASS has no section on it. It measures no time.
"""

from __future__ import annotations

from compass_ray.serving.answering.enquiries import InferenceResponse
from compass_ray.serving.numbers.statistics import RequestStatistics


class RequestCounter:
    """The count of one request."""

    def __init__(self, statistics: RequestStatistics) -> None:
        """Count it as begun."""
        self.statistics = statistics
        self.ended = False
        statistics.record_start()

    def record_completion(self, reply: InferenceResponse) -> None:
        """It has its reply."""
        if self._end_once():
            self.statistics.record_completion(
                language=reply.route.language,
                adapter=reply.output.adapter,
                seconds=reply.seconds,
                first_token_seconds=reply.first_token_seconds,
                prompt_tokens=reply.output.prompt_tokens,
                completion_tokens=reply.output.completion_tokens,
            )

    def record_refusal(self, status: int) -> None:
        """It was answered with an error."""
        if self._end_once():
            self.statistics.record_refusal(status)

    def record_cancellation(self) -> None:
        """Its client went away, unless it ended otherwise."""
        if self._end_once():
            self.statistics.record_cancellation()

    def _end_once(self) -> bool:
        ended, self.ended = self.ended, True
        return not ended
