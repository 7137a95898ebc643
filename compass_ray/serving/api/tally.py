"""One request in the statistics: begun once, ended once, by whichever end comes first.

Key property: however a request ends, answered, refused before or in the middle of its stream, or left by its client, it counts
as exactly one of these. COMPASS has no section on it. It measures no time.
"""

from __future__ import annotations

from compass_ray.serving.answering.enquiries import Reply
from compass_ray.serving.numbers.statistics import Statistics


class Tally:
    """The count of one request."""

    def __init__(self, statistics: Statistics) -> None:
        """Count it as begun."""
        self.statistics = statistics
        self.ended = False
        statistics.began()

    def answered(self, reply: Reply) -> None:
        """It has its reply."""
        if self._end():
            self.statistics.answered(
                language=reply.route.language,
                adapter=reply.answer.adapter,
                seconds=reply.seconds,
                first_token_seconds=reply.first_token_seconds,
                prompt_tokens=reply.answer.prompt_tokens,
                completion_tokens=reply.answer.completion_tokens,
            )

    def refused(self, status: int) -> None:
        """It was answered with an error."""
        if self._end():
            self.statistics.refused(status)

    def cancelled(self) -> None:
        """Its client went away, unless it ended otherwise."""
        if self._end():
            self.statistics.cancelled()

    def _end(self) -> bool:
        ended, self.ended = self.ended, True
        return not ended
