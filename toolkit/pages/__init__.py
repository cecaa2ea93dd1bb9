"""The HTML pages: one module for each, which has the name of its file. They show results, and change none.

parts/ has what several pages share, templates/ the HTML, static/ style sheet and scripts.
"""
