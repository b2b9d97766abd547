#!lua flags=allow-oom
-- cool_down(ms): nobody submits for so long. A longer cooldown that runs already stays.
local until_ms = NOW + tonumber(ARGV[1])
if until_ms > int(redis.call('GET', 'dr:cooldown')) then
  redis.call('SET', 'dr:cooldown', digits(until_ms), 'PX', math.ceil(tonumber(ARGV[1])) + 1000)
end
return 1
