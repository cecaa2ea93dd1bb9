"""The pages, one module for each. They show results, and change none.

parts/ has what several pages share, templates/ the HTML, static/ style sheet and scripts.
"""
