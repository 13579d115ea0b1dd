-- Append an event that touches no counter.
--
-- Keys and arguments: common.lua, without counters. ARGV[7]: 'always' if a full outbox takes it all the same.
-- Reply: {nudge due}

return {append(0, {}, ARGV[7] == 'always')}
