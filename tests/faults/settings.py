"""Settings of the processes that a test starts: those of the test site, on the servers that it is given."""

import json
import os

from tests.settings import *  # noqa: F403

DATABASES = {"default": json.loads(os.environ["AXES_FAULTS_DATABASE"])}
CACHES["default"]["LOCATION"] = os.environ["AXES_FAULTS_VALKEY"]  # noqa: F405
CELERY_BROKER_URL = os.environ["AXES_FAULTS_BROKER"]
CELERY_TASK_DEFAULT_QUEUE = "faults"
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
LOGGING = {"version": 1, "handlers": {"null": {"class": "logging.NullHandler"}}, "root": {"handlers": ["null"]}}
for _name, _value in json.loads(os.environ.get("AXES_FAULTS_SETTINGS", "{}")).items():
    globals()[_name] = _value
