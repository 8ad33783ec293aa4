-- The load of `offramp bench service`, for wrk (https://github.com/wg/wrk), for example:
--   wrk -t1 -c64 -d10s -s load.lua http://127.0.0.1:8080/v1/classify -- bodies.jsonl 0 320
-- Arguments: a file with the JSON body of a request on each line; a seed for their order; the mean milliseconds that a
-- connection waits before each request, 0 for none; API keys, which take turns at random.
-- The waits are exponentially distributed, so that requests arrive at random times, whether others wait or not: 64
-- connections that wait 320 ms send 200 requests a second. The last line of the output is a JSON object.
local bodies, keys = {}, {}

function init(args)
   for line in io.lines(args[1]) do bodies[#bodies + 1] = line end
   math.randomseed(tonumber(args[2]))
   local mean = tonumber(args[3])
   if mean > 0 then
      delay = function() return math.floor(0.5 - mean * math.log(1 - math.random())) end
   end
   for i = 4, #args do keys[#keys + 1] = "Bearer " .. args[i] end
end

function request()
   local headers = {["content-type"] = "application/json"}
   if #keys > 0 then headers["authorization"] = keys[math.random(#keys)] end
   return wrk.format("POST", nil, headers, bodies[math.random(#bodies)])
end

function done(summary, latency, requests)
   local errors = summary.errors
   local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
   io.write(string.format(
      '{"requests": %d, "seconds": %.6f, "failed": %d, "p50": %.3f, "p95": %.3f, "p99": %.3f}\n',
      summary.requests, summary.duration / 1e6, failed,
      latency:percentile(50) / 1e3, latency:percentile(95) / 1e3, latency:percentile(99) / 1e3))
end
