#!lua flags=allow-oom
-- dispatch(): hand out free permits. Answers in how many milliseconds it is worth trying again, -1 for unknown.
return math.ceil(dispatch())
