#!lua flags=allow-oom
-- close_gate(reason, message, first delay ms, longest delay ms, job): fal refuses our key or our balance: nothing is submitted
-- but one probe at a time, at growing distances. `job` is the one that met it:
-- what was on its way when the gate closed changes nothing any more.
local gate = read('dr:gate:fal')
local delay = tonumber(ARGV[3])
if gate then
  if gate.probe ~= ARGV[5] then return 0 end
  delay = math.min(int(gate.delay) * 2, tonumber(ARGV[4]))
end
redis.call('HSET', 'dr:gate:fal', 'reason', ARGV[1], 'message', ARGV[2], 'since', gate and gate.since or NOW, 'delay', delay,
  'probe_at', NOW + delay, 'probe', '')
return 1
