#!lua flags=allow-oom
-- open_gate(): the operator says that fal takes submissions again.
redis.call('DEL', 'dr:gate:fal')
dispatch()
return 1
