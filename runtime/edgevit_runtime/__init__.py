"""The part of edgevit that runs on devices: worker, records, clock, environment. It needs the standard library only."""
