/**
 * Scripts in Lua. Redis runs each of them atomically.
 *
 * `exclusive:lock:NAME` is a string: the owner, the token and the record of the exclusive holder, one a line.
 * `exclusive:shared:NAME` is a hash with a field for each reader: the end of its lease, its token and its record.
 *
 * A second hold (store/second-hold.ts) has no time to live, so that neither an eviction of `volatile-*` nor a clock that
 * is set takes both holds away. The end of its lease stands behind its token. Each renewal changes it; a newcomer that
 * has seen it unchanged for long enough, on a clock of its own, takes it over.
 *
 * A full server (`maxmemory`) refuses SET and HSET, but not in a script that has written before: so each renewal begins
 * with PEXPIRE or PERSIST.
 *
 * Two keys are never deleted: `exclusive:memory` has the server that wrote it and since when that server remembers locks,
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

/** Splits the value of a lock. */
const VALUE = `
local parse = function(value)
  local token, rest, record = string.match(value, '\\n(%d+)([^\\n]*)\\n(.*)')
  return token or '', record or '', string.match(rest or '', '^ (%d+)$')
end
`;

/**
 * Takes the lock. KEYS lock, shared, memory, token; ARGV owner, ttl, mode, record, lasting, stale, trusted: `lasting` is
 * "1" for a second hold, `stale` is the end of a lease that may be taken over, `trusted` is a `run_id` whose memory need
 * not be asked.
 *
 * A restarted or promoted server has another `run_id`, and may not know the last locks. So it gives none until its
 * memory reaches back one lease. That time begins with the first look. The token is the server's time, or the last token
 * plus one: so it grows even when `exclusive:token` is lost. The owner may ask again: a repeated request succeeds.
 * @returns `{'taken', token}`; `{'held', ms, ends}` with the time until the holder's lease ends, and the end of a second
 *   hold's lease; or `{'unsure', ms, run_id}` with the time until the memory reaches back one lease
 */
export const ACQUIRE = `${NOW}${VALUE}
local owner, ttl, mode, record = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local lasting = ARGV[5] == '1'
local server = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
local writer, since = string.match(redis.call('GET', KEYS[3]) or '', '^(%x+) (%d+)$')
if writer ~= server or tonumber(since) > now then
  since = text(now)
  redis.call('SET', KEYS[3], server .. ' ' .. since)
end
local held = redis.call('GET', KEYS[1])
local mine = held and string.sub(held, 1, #owner) == owner
if held and not mine then
  local _, _, ends = parse(held)
  if not ends then return {'held', redis.call('PTTL', KEYS[1])} end
  if ends ~= ARGV[6] then return {'held', tonumber(ends) - now, ends} end
end
${READERS}
if mode == 'exclusive' and living > 0 then return {'held', math.max(0, redis.call('PTTL', KEYS[2]))} end
local unsure = math.min(tonumber(since) + ttl - now, ttl)
if unsure > 0 and ARGV[7] ~= server then return {'unsure', unsure, server} end
local token = text(math.max(micros, tonumber(redis.call('GET', KEYS[4]) or '0') + 1))
redis.call('SET', KEYS[4], token)
if mode == 'exclusive' then
  if lasting then redis.call('SET', KEYS[1], owner .. '\\n' .. token .. ' ' .. text(now + ttl) .. '\\n' .. record)
  else redis.call('SET', KEYS[1], owner .. '\\n' .. token .. '\\n' .. record, 'PX', ttl) end
else
  redis.call('HSET', KEYS[2], owner, text(now + ttl) .. '\\n' .. token .. '\\n' .. record)
  if not lasting then redis.call('PEXPIRE', KEYS[2], math.max(ttl, redis.call('PTTL', KEYS[2]))) end
end
return {'taken', token}
`;

/**
 * Extends the lease. KEYS lock, shared; ARGV owner, ttl, mode, record, lasting.
 * @returns 1 if the owner still had the lock, else 0
 */
export const RENEW = `${NOW}${VALUE}
local owner, ttl, mode, record = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local lasting = ARGV[5] == '1'
local key = mode == 'exclusive' and KEYS[1] or KEYS[2]
local keep = function()
  if lasting then redis.call('PERSIST', key)
  else redis.call('PEXPIRE', key, math.max(ttl, mode == 'exclusive' and 0 or redis.call('PTTL', key))) end
end
if mode == 'exclusive' then
  local held = redis.call('GET', key)
  if not held or string.sub(held, 1, #owner) ~= owner then return 0 end
  keep()
  local token, written = parse(held)
  if lasting then redis.call('SET', key, owner .. '\\n' .. token .. ' ' .. text(now + ttl) .. '\\n' .. record)
  elseif written ~= record then redis.pcall('SET', key, owner .. '\\n' .. token .. '\\n' .. record, 'PX', ttl) end
  return 1
end
local held = redis.call('HGET', key, owner)
if not held or tonumber(string.match(held, '^%d+')) <= now then return 0 end
keep()
redis.call('HSET', key, owner, text(now + ttl) .. '\\n' .. string.match(held, '\\n(%d+)\\n') .. '\\n' .. record)
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
 * Lists the holders. A second hold whose lease has ended is not among them. KEYS lock, shared.
 * @returns each holder's mode, token, record and the milliseconds left of its lease
 */
export const PROBE = `${NOW}${VALUE}
local found = {}
local held = redis.call('GET', KEYS[1])
if held then
  local token, record, ends = parse(held)
  local left = ends and tonumber(ends) - now or redis.call('PTTL', KEYS[1])
  if not ends or left > 0 then table.insert(found, {'exclusive', token, record, left}) end
end
local readers = redis.call('HGETALL', KEYS[2])
for i = 1, #readers, 2 do
  local ends, token, record = string.match(readers[i + 1], '^(%d+)\\n(%d+)\\n(.*)')
  if ends and tonumber(ends) > now then table.insert(found, {'shared', token, record, tonumber(ends) - now}) end
end
return found
`;
