/**
 * What Redis does for a lock, in Lua: each script is one step that nothing can come between.
 *
 * `exclusive:lock:NAME` is a string, `exclusive:shared:NAME` a hash with one field for each reader. The value of
 * either is the owner or the end of its lease, the token and the record, a line each. Two keys stay for ever:
 * `exclusive:memory`, which server wrote it and since when it remembers, and `exclusive:token`, the newest token.
 */

/** Milliseconds and microseconds of the server's clock; 2^53 microseconds are 285 years. */
const NOW = `
local time = redis.call('TIME')
local micros = tonumber(time[1]) * 1000000 + tonumber(time[2])
local now = math.floor(micros / 1000)
local text = function(number) return string.format('%.0f', number) end
`;

/** Readers whose lease has ended are no more: a hash expires only as a whole. */
const READERS = `
local readers = redis.call('HGETALL', KEYS[2])
local living = 0
for i = 1, #readers, 2 do
  if tonumber(string.match(readers[i + 1], '^%d+')) > now then living = living + 1
  else redis.call('HDEL', KEYS[2], readers[i]) end
end
`;

/**
 * KEYS lock, shared, memory, token; ARGV owner, ttl, mode, record.
 * @returns `{'held', ms}`: until its lease ends; `{'unsure', ms}`: until the memory reaches back one lease;
 *   `{'taken', token}`
 *
 * The memory is that of one server: another one (`run_id`), restarted or promoted, may have missed the last locks.
 * The token is the server's time, or one more than the last: so it grows even past a loss of memory.
 */
export const ACQUIRE = `${NOW}
local owner, ttl, mode, record = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local held = redis.call('GET', KEYS[1])
local mine = held and string.sub(held, 1, #owner) == owner
if held and not mine then return {'held', redis.call('PTTL', KEYS[1])} end
${READERS}
if mode == 'exclusive' and living > 0 then return {'held', redis.call('PTTL', KEYS[2])} end
local server = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
local writer, since = string.match(redis.call('GET', KEYS[3]) or '', '^(%x+) (%d+)$')
if writer ~= server then
  redis.call('SET', KEYS[3], server .. ' ' .. text(now))
  return {'unsure', ttl}
end
local unsure = math.min(tonumber(since) + ttl - now, ttl)
if unsure > 0 then return {'unsure', unsure} end
local token = text(math.max(micros, tonumber(redis.call('GET', KEYS[4]) or '0') + 1))
redis.call('SET', KEYS[4], token)
if mode == 'exclusive' then
  if mine then redis.call('DEL', KEYS[1]) end
  redis.call('SET', KEYS[1], owner .. '\\n' .. token .. '\\n' .. record, 'NX', 'PX', ttl)
else
  redis.call('HSET', KEYS[2], owner, text(now + ttl) .. '\\n' .. token .. '\\n' .. record)
  redis.call('PEXPIRE', KEYS[2], math.max(ttl, redis.call('PTTL', KEYS[2])))
end
return {'taken', token}
`;

/** KEYS lock, shared; ARGV owner, ttl, mode, record. @returns 1 if the lock was still ours. */
export const RENEW = `${NOW}
local owner, ttl, mode, record = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
if mode == 'exclusive' then
  local held = redis.call('GET', KEYS[1])
  if not held or string.sub(held, 1, #owner) ~= owner then return 0 end
  local token = string.match(held, '\\n(%d+)\\n')
  redis.call('SET', KEYS[1], owner .. '\\n' .. token .. '\\n' .. record, 'XX', 'PX', ttl)
  return 1
end
local held = redis.call('HGET', KEYS[2], owner)
if not held or tonumber(string.match(held, '^%d+')) <= now then return 0 end
local token = string.match(held, '\\n(%d+)\\n')
redis.call('HSET', KEYS[2], owner, text(now + ttl) .. '\\n' .. token .. '\\n' .. record)
redis.call('PEXPIRE', KEYS[2], math.max(ttl, redis.call('PTTL', KEYS[2])))
return 1
`;

/** KEYS lock, shared; ARGV owner, channel. Who waits is told. */
export const RELEASE = `
local owner = ARGV[1]
local held = redis.call('GET', KEYS[1])
if held and string.sub(held, 1, #owner) == owner then redis.call('DEL', KEYS[1])
elseif redis.call('HDEL', KEYS[2], owner) == 0 then return 0 end
redis.pcall('PUBLISH', ARGV[2], 'free')
return 1
`;

/** KEYS lock, shared. @returns for each holder its mode, token and record, and how long its lease lasts. */
export const LOOK = `${NOW}
local found = {}
local held = redis.call('GET', KEYS[1])
if held then
  local token, record = string.match(held, '\\n(%d+)\\n(.*)')
  table.insert(found, {'exclusive', token or '', record or '', redis.call('PTTL', KEYS[1])})
end
local readers = redis.call('HGETALL', KEYS[2])
for i = 1, #readers, 2 do
  local ends, token, record = string.match(readers[i + 1], '^(%d+)\\n(%d+)\\n(.*)')
  if ends and tonumber(ends) > now then table.insert(found, {'shared', token, record, tonumber(ends) - now}) end
end
return found
`;
