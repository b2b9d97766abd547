#!lua flags=allow-oom
-- sweep(retention ms, limit): ids of ended jobs whose time has come; the caller removes each by delete_job. Events of the
-- same age go here. A set made by earlier calls is no harm to a later one.
local before = NOW - tonumber(ARGV[1])
for _, account in ipairs(redis.call('ZRANGE', 'dr:accounts', 0, -1)) do
  local stream = 'dr:events:' .. account
  for _, entry in ipairs(redis.call('XRANGE', stream, '-', '+', 'COUNT', ARGV[2])) do
    local fields = entry[2]
    for i = 1, #fields, 2 do
      if fields[i] == 'at' and tonumber(fields[i + 1]) < before then redis.call('XDEL', stream, entry[1]) end
    end
  end
end
return redis.call('ZRANGE', 'dr:ended', '-inf', before, 'BYSCORE', 'LIMIT', 0, ARGV[2])
