#!lua
-- account_rate(account, interval ms, burst): may this account ask for something now? GCRA. Answers {allowed 0|1, how many
-- more may come at once, ms until one more may, ms until all of the burst may}. A repeat counts once more: it only ever
-- makes a caller wait one interval longer.
local key = 'dr:account_rate:' .. ARGV[1]
local interval = tonumber(ARGV[2])
local full = interval * tonumber(ARGV[3])
local at = math.max(tonumber(redis.call('GET', key) or '0'), NOW)
local room = full - (at - NOW)
if room < interval then return { 0, 0, math.ceil(interval - room), math.ceil(at - NOW) } end
at = at + interval
redis.call('SET', key, at, 'PX', math.ceil(at - NOW) + 1000)
return { 1, math.floor((room - interval) / interval), 0, math.ceil(at - NOW) }
