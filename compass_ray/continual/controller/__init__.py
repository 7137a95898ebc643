"""The service that adapts by itself: it answers alarms with updates, tries and promotes what they make, and rolls back.

Key property: nothing is remembered that does not lie in the run directory, so whoever takes over goes on; and what follows from
what is found there is decided by one pure function (`deciding`), once a turn. Rooms: the `situation` of a language and how it is
found (`looking`) and remembered (`remembering`), the `actions` that may follow, from `offers` of windows and from `comparing`
versions, `doing` them, updates as `tasks`, `questions` whose answers are known and `asking` them, `turning` all of it
around, and the `actor`. Beyond the paper, which leaves all of this to whoever runs the service.
"""
