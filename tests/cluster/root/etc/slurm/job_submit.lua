-- What a test can make the controller do with each submission, by files beside this one:
--   reply_delay  answer so many seconds late (longer than MessageTimeout: sbatch gives up, the job
--                is queued nevertheless)
--   queue_wait   start no job earlier than so many seconds from now
--   refuse       refuse, in these words

local function first_line(path)
    local file = io.open(path, "r")
    if not file then
        return nil
    end
    local line = file:read("*l")
    file:close()
    return line
end

function slurm_job_submit(job_desc, part_list, submit_uid)
    local delay = tonumber(first_line("/etc/slurm/reply_delay") or "0") or 0
    if delay > 0 then
        os.execute("sleep " .. delay)
    end
    local wait = tonumber(first_line("/etc/slurm/queue_wait") or "0") or 0
    if wait > 0 then
        job_desc.begin_time = os.time() + wait
    end
    local words = first_line("/etc/slurm/refuse")
    if words then
        slurm.log_user(words)
        return slurm.ERROR
    end
    return slurm.SUCCESS
end

function slurm_job_modify(job_desc, job_rec, part_list, modify_uid)
    return slurm.SUCCESS
end

return slurm.SUCCESS
