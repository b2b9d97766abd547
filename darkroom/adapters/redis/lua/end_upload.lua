#!lua flags=allow-oom
-- end_upload(account, hash of the idempotency key, token): the upload came to nothing: the key is free at once. Repeatable.
local key = 'dr:batch_idem:' .. ARGV[1] .. ':' .. ARGV[2]
if redis.call('HGET', key, 'token') == ARGV[3] and redis.call('HEXISTS', key, 'batch') == 0 then redis.call('DEL', key) end
return 1
