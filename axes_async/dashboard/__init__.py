"""The figures of the dashboard, and its charts; its pages are in ``admin/dashboard.py``."""
