"""Figures from logs: `python3 -m plotting LOGDIR --out DIR` (RUNME-a.sh calls it).

formats/   one reader a log format; strict, each refusal is one sentence with file and line
layout     which kind of log folder this is, and which file belongs to which bar
artifact_* from the SmartMoE artifact's logs to the numbers behind figures 8 to 13
own_*      from Ballast's own run logs to the numbers of its figures
draw_*     from numbers to pictures
"""
