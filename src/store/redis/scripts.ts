/**
 * Scripts in Lua. Redis runs each of them atomically.
 *
 * `exclusive:lock:NAME` is a string: the owner, the token and the record of the exclusive holder, one a line.
 * `exclusive:shared:NAME` is a hash with a field for each reader: the end of its lease, its token and its record. Two
 * keys are never deleted: `exclusive:memory` has the server that wrote it and since when that server remembers locks,
 * `exclusive:token` has the newest token.
 */

/**
 * The server's clock, in microseconds and milliseconds. A Lua number is exact up to 2^53; as microseconds, 285 years.
 */
const NOW = `
local time = redis.call('TIME')
local micros = tonumber(time[1]) * 1000000 + tonumber(time[2])
local now = math.floor(micros / 1000)
local text = function(number) return string.format('%.0f', number) end
`;

/** Deletes readers whose lease has ended, since a hash expires only as a whole. */
const READERS = `
local readers = redis.call('HGETALL', KEYS[2])
local living = 0
for i = 1, #readers, 2 do
  if tonumber(string.match(readers[i + 1], '^%d+')) > now then living = living + 1
  else redis.call('HDEL', KEYS[2], readers[i]) end
end
`;

/**
 * Takes the lock. KEYS lock, shared, memory, token; ARGV owner, ttl, mode, record.
 *
 * A restarted or promoted server has another `run_id`, and may not know the last locks. So it takes none until its
 * memory reaches back one lease. The token is the server's time, or the last token plus one: so it grows even when
 * `exclusive:token` is lost. The owner may ask again: a repeated request succeeds.
 * @returns `{'taken', token}`; `{'held', ms}` with the time until the holder's lease ends; or `{'unsure', ms}` with the
 *   time until the memory reaches back one lease
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

/**
 * Extends the lease. KEYS lock, shared; ARGV owner, ttl, mode, record.
 * @returns 1 if the owner still had the lock, else 0
 */
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

/** Releases the lock, and notifies the waiters. KEYS lock, shared; ARGV owner, channel. */
export const RELEASE = `
local owner = ARGV[1]
local held = redis.call('GET', KEYS[1])
if held and string.sub(held, 1, #owner) == owner then redis.call('DEL', KEYS[1])
elseif redis.call('HDEL', KEYS[2], owner) == 0 then return 0 end
redis.pcall('PUBLISH', ARGV[2], 'free')
return 1
`;

/**
 * Lists the holders. KEYS lock, shared.
 * @returns each holder's mode, token, record and the milliseconds left of its lease
 */
export const PROBE = `${NOW}
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
