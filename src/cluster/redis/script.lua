-- The same steps as tests/record_rules, by the clock of this server. tests/it/cluster/conformance.rs compares the two.
-- Numbers are doubles here: counts stay below 10^15, and the ids of nodes are text.
-- KEYS: the record, the set of changes, the sequence. ARGV: the channel, the tag, the operation and its arguments.
local LEASE_MS_MAX, WAIT_MS_MAX, NOBODY, KEEP_S = $LEASE_MS_MAX, $WAIT_MS_MAX, '$NOBODY', $KEEP_S
local DONE, NEWER, HELD, LATER, REFUSED = 0, 1, 2, 3, 4
local FIELDS = {$FIELDS}
local channel, tag, operation = ARGV[1], ARGV[2], ARGV[3]
-- Without this, Redis before 5 replays whole scripts on its replicas, and forbids reading the clock.
if redis.replicate_commands then redis.replicate_commands() end
local now = $NOW

local function written(number)
  return string.format('%.0f', number)
end

-- Only the digits that the script itself writes; anything else counts as absent. The same in script.rs.
local function number(text)
  if text == '0' or (#text <= 15 and string.find(text, '^[1-9]%d*$')) then return tonumber(text) end
end

local function node(text)
  local plain = text == '0' or string.find(text, '^[1-9]%d*$')
  if plain and (#text < 20 or (#text == 20 and text <= '18446744073709551615')) then return text end
end

-- Older servers begin the text of an error with its sign.
local function failure(answer)
  return { err = (string.gsub(answer.err, '^-', '')) }
end

local function failed(answer, with)
  return type(answer) == 'table' and answer.err and (not with or string.find(answer.err, with))
end

local stored = redis.pcall('HMGET', KEYS[1], unpack(FIELDS))
local bad, replaced = '', false
if failed(stored, 'WRONGTYPE') then
  stored, bad, replaced = {}, 'type', true
elseif failed(stored) then
  return failure(stored)
end

local function field(at, parse)
  local raw = stored[at]
  if not raw then return nil end
  local value = parse(raw)
  if value == nil then bad = FIELDS[at] end
  return value
end

local r = {
  epoch = field(1, number) or 0, holder = field(2, node) or '0', until_ms = field(3, number) or 0,
  generation = field(7, number) or 0, value = stored[8] or nil, answered_ms = field(9, number) or 0,
  not_before_ms = field(10, number) or 0, failures = field(11, number) or 0, calls = stored[12] or nil,
}
local by, settled_by, at_ms = field(4, number), field(5, number), field(6, number)
if by and settled_by and at_ms then
  r.open = { by = by, settled_by = settled_by, at_ms = at_ms }
elseif by or settled_by or at_ms then
  bad = FIELDS[4]
end
-- No node writes an unsettled call that the next lease would not settle, and such a call would stay for ever.
if r.open and r.open.settled_by > r.epoch + 1 then
  r.open, bad = nil, FIELDS[4]
end

local function flat()
  local open = r.open
  return {
    written(r.epoch), r.holder, written(r.until_ms), open and written(open.by) or false,
    open and written(open.settled_by) or false, open and written(open.at_ms) or false, written(r.generation),
    r.value or false, written(r.answered_ms), written(r.not_before_ms), written(r.failures), r.calls or false,
  }
end

local function lease_left()
  local left = r.until_ms - now
  if r.holder ~= '0' and left >= 1 and left <= LEASE_MS_MAX then return left end
  return 0
end

local function is_mine(holder, epoch)
  return r.holder == holder and r.epoch == epoch
end

local function keep(holder, keep_ms)
  if keep_ms == 0 then
    r.holder, r.until_ms = '0', 0
  else
    r.holder, r.until_ms = holder, now + math.min(keep_ms, LEASE_MS_MAX)
  end
end

local function count(calls)
  if string.sub(calls, 1, 1) == '+' then r.calls = string.sub(calls, 2) end
end

local function tangle()
  local since = now
  if r.open then since = math.min(r.open.at_ms, now) end
  r.open = { by = 0, settled_by = r.epoch + 1, at_ms = since }
end

local function put_off(spacing_ms)
  if spacing_ms == 0 then return 0 end
  local left, put, asked = 0, math.max(r.not_before_ms - now, 0), math.max(r.answered_ms + spacing_ms - now, 0)
  if put <= WAIT_MS_MAX then left = put end
  if asked <= spacing_ms and r.value then left = math.max(left, asked) end
  return left
end

local operations = {}

function operations.read()
  return DONE, 0
end

function operations.take(asker, lease_ms, knows, spacing_ms)
  if r.generation > tonumber(knows) and r.value then return NEWER, 0 end
  local left = lease_left()
  if left > 0 and (r.holder ~= asker or r.open) then return HELD, left end
  left = put_off(tonumber(spacing_ms))
  if left > 0 then return LATER, left end
  r.epoch = r.epoch + 1
  keep(asker, math.max(tonumber(lease_ms), 1))
  return DONE, 0
end

function operations.announce(asker, epoch, need_ms)
  epoch = tonumber(epoch)
  if not is_mine(asker, epoch) or lease_left() < math.max(tonumber(need_ms), 1) then return REFUSED, 0 end
  r.open = r.open or { by = epoch, settled_by = epoch, at_ms = now }
  return DONE, 0
end

function operations.publish(asker, epoch, generation, value, calls, minted, keep_ms)
  epoch, generation, minted = tonumber(epoch), tonumber(generation), minted == '1'
  local fits = generation > r.generation or (not minted and generation == r.generation)
  local mine = is_mine(asker, epoch)
  if fits and (mine or (r.epoch == 0 and r.generation == 0)) then
    if r.open and r.open.settled_by <= epoch then r.open = nil end
    r.epoch = math.max(r.epoch, epoch)
    if minted and not mine then tangle() end
    r.generation, r.value = generation, value
    r.answered_ms, r.not_before_ms, r.failures = now, 0, 0
    count(calls)
    keep(asker, tonumber(keep_ms))
    return DONE, 0
  end
  if minted then tangle() end
  return REFUSED, 0
end

local function ended(epoch, how, mine)
  if how == 'lost' and mine then
    r.open = r.open or { by = epoch, settled_by = epoch + 1, at_ms = now }
    r.open.settled_by = math.max(r.open.settled_by, epoch + 1)
  elseif how == 'lost' then
    tangle()
  elseif mine then
    if how == 'answered' then r.answered_ms = now end
    if r.open and r.open.by == epoch and r.open.settled_by == epoch then r.open = nil end
  end
end

function operations.close(asker, epoch, how, went_wrong, wait_ms, keep_ms, calls)
  epoch, wait_ms = tonumber(epoch), tonumber(wait_ms)
  local mine = is_mine(asker, epoch)
  count(calls)
  ended(epoch, how, mine)
  if not mine then return REFUSED, 0 end
  if went_wrong == '1' then r.failures = r.failures + 1 end
  if wait_ms > 0 then r.not_before_ms = now + wait_ms end
  if how == 'lost' then r.holder = NOBODY else keep(asker, tonumber(keep_ms)) end
  return DONE, 0
end

function operations.offer(generation, value)
  generation = tonumber(generation)
  if lease_left() > 0 or (generation <= r.generation and r.value) then return REFUSED, 0 end
  if r.value then tangle() end
  r.generation, r.value = generation, value
  return DONE, 0
end

function operations.doubt(generation)
  if tonumber(generation) ~= r.generation then return REFUSED, 0 end
  tangle()
  return DONE, 0
end

function operations.discard(generation, value)
  local given = string.sub(value, 1, 1) == '+' and string.sub(value, 2) or nil
  if tonumber(generation) ~= r.generation or given ~= r.value then return REFUSED, 0 end
  r.generation, r.value = 0, nil
  return DONE, 0
end

local before = flat()
local verdict, left_ms = operations[operation](unpack(ARGV, 4))
local after = flat()

-- The sequence counts changes. A new one has another identity, and nothing to do with the one before.
local function next_seq()
  local n = redis.pcall('HINCRBY', KEYS[3], 'n', 1)
  local rubbish = failed(n, 'WRONGTYPE') or failed(n, 'integer') or failed(n, 'overflow')
  if rubbish or (type(n) == 'number' and (n < 1 or n >= 1e15)) then
    redis.call('DEL', KEYS[3])
    n = redis.pcall('HINCRBY', KEYS[3], 'n', 1)
  end
  if failed(n) then return n end
  local born = redis.call('HGET', KEYS[3], 'born')
  if n == 1 or not born then
    born = $BORN
    redis.call('HSET', KEYS[3], 'born', born)
    redis.call('DEL', KEYS[2])
  end
  return n, born
end

local function save(n)
  local set, unset = {}, {}
  for at = 1, #after do
    local old, new = stored[at] or false, after[at]
    -- A missing number is 0. An unsettled call has all three fields or none.
    if new and new ~= old and (old or new ~= '0' or (at >= 4 and at <= 6)) then
      set[#set + 1], set[#set + 2] = FIELDS[at], new
    elseif not new and old then
      unset[#unset + 1] = FIELDS[at]
    end
  end
  if n then set[#set + 1], set[#set + 2] = 'seq', written(n) end
  if replaced and #set > 0 then redis.call('DEL', KEYS[1]) end
  local answer
  if #set > 0 then answer = redis.pcall('HSET', KEYS[1], unpack(set)) end
  if #unset > 0 and not failed(answer) then answer = redis.pcall('HDEL', KEYS[1], unpack(unset)) end
  if answer and not failed(answer) then redis.call('EXPIRE', KEYS[1], KEEP_S) end
  return answer
end

local function tell(n, born)
  local answer = redis.pcall('ZADD', KEYS[2], n, tag)
  if failed(answer, 'WRONGTYPE') then
    redis.call('DEL', KEYS[2])
    redis.call('ZADD', KEYS[2], n, tag)
  end
  redis.call('EXPIRE', KEYS[2], KEEP_S)
  redis.call('EXPIRE', KEYS[3], KEEP_S)
  -- A node that misses the message polls.
  redis.pcall('PUBLISH', channel, cjson.encode({ tag, written(n), born, written(now), unpack(after) }))
end

local seq, born = stored[13], nil
if operation ~= 'read' then
  local changed = false
  for at = 4, 8 do changed = changed or before[at] ~= after[at] end
  if changed then
    seq, born = next_seq()
    if failed(seq) then return failure(seq) end
  end
  local answer = save(changed and seq)
  if failed(answer) then return failure(answer) end
  if changed then
    tell(seq, born)
    seq = written(seq)
  end
end
return { verdict, written(left_ms), written(now), bad, after[1], after[2], after[3], after[4], after[5], after[6],
  after[7], after[8], after[9], after[10], after[11], after[12], seq or false }
