-- The key: what this store says of its counters. One string, "status generation void run_id".
--
-- status      ok: complete. stale: not to be used, but for rows that are not dirty. lost: counters may be missing.
-- generation  the fencing token: a step that carries another one changes nothing.
-- void        counters of that generation, or of an earlier one, count nothing.
-- run_id      the server that it was set on; '-' where a connection has found another one (connect.lua).

local call  -- redis.call, which is not there yet while the library is loaded.

-- The functions are named after the source, so that two versions of it can be in use at the same time.
local function register(name, flags, step)
  redis.register_function{
    function_name = PREFIX .. name,
    flags = flags,
    callback = function(keys, args)
      call = redis.call
      return step(keys, args)
    end,
  }
end

-- The key as it was parsed last: it changes with a sync, and is read by every step.
local key_text, key

local function parse_key(text)
  local status, generation, void, run_id = text:match('^(%a+) (%d+) (%-?%d+) (%S+)$')
  if not status then return nil end
  return {status = status, generation = tonumber(generation), text = generation, id = generation .. '-*',
          void = tonumber(void), run_id = run_id}
end

-- Return the key, or nil.
local function read_key(name)
  local text = call('GET', name)
  if not text then return nil end
  if text ~= key_text then key_text, key = text, parse_key(text) end
  return key
end

local function write_key(name, status, generation, void, run_id)
  call('SET', name, string.format('%s %.0f %.0f %s', status, generation, void, run_id))
end

-- Return the key if the step of a caller that knows this generation may be done, else nil and the reply.
local function enter(name, generation)
  local found = read_key(name)
  if not found or found.status ~= 'ok' then return nil, 'incomplete' end
  if found.text ~= generation then return nil, 'generation ' .. found.text end
  return found
end

local function run_id()
  return call('INFO', 'server'):match('run_id:(%w+)') or 'unknown'
end

-- Return the time in epoch milliseconds; a test sets its own.
local function clock(fixed)
  if fixed ~= '' then return tonumber(fixed) end
  local time = call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
