#!lua
-- begin_upload(account, hash of the idempotency key, token, ms): the right to upload a batch under this key, for so long; its holder
-- asks again before that ends. Natural key: the token. Answers {begin}, {busy}, or {known, batch, fingerprint}.
local key = 'dr:batch_idem:' .. ARGV[1] .. ':' .. ARGV[2]
local known = redis.call('HMGET', key, 'batch', 'fingerprint', 'token')
if known[1] then return { 'known', known[1], known[2] } end
if known[3] and known[3] ~= ARGV[3] then return { 'busy' } end
redis.call('HSET', key, 'token', ARGV[3])
redis.call('PEXPIRE', key, ARGV[4])
return { 'begin' }
