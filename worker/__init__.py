"""The engine room: the Celery app, its tasks, one event loop that holds the jobs, and the ticker."""
