-- One row a device of a run: what it said that it is, before the run began. This machine is the device host.
CREATE VIEW devices AS SELECT
    run,           -- VARCHAR   id of the run
    device,        -- VARCHAR   as the recipe calls it; host: the machine that recorded
    link,          -- VARCHAR   how it was reached: host, adb, ssh or local
    address,       -- VARCHAR   where: a serial, user@host, a shell; of the host its name
    model,         -- VARCHAR   its make, as it says
    soc,           -- VARCHAR   its processor
    os,            -- VARCHAR   its system, with the build
    kernel,        -- VARCHAR   its system's kernel
    abi,           -- VARCHAR   what its programs are built for: arm64-v8a, aarch64, x86_64
    cores,         -- BIGINT    how many it has
    memory_bytes,  -- BIGINT    how much it has [By]
    root,          -- BOOLEAN   whether our commands run as root there
    loop,          -- VARCHAR   what samples its files: shell, python3, sleep, date or uptime
    error          -- VARCHAR   why it said less, or nothing
FROM _devices;
