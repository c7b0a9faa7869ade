"""Videos of strangers are decoded here, in processes that can do nothing else.

    Pool ──(control)──► zygote            started once: imports the decoder and torch, never sees a video
      │                   └─ fork ─► child   confines itself; then decodes and answers, a few times
      └──(video's descriptor, shared memory, job)──► child ──(answer: JSON, frames in the shared memory)──► Pool

The parent's side: `pool` (jobs, deadlines, who waits), `launcher` (the zygote as seen from outside), `claims` (what a
child says, checked as if a stranger said it). The children's: `zygote`, `child`, `jail`, `seccomp`. Both: `wire`.

Why a zygote: a child needs torch, because its bicubic resize is what the models were trained on, and no other library
gives the same bits. Importing it takes two seconds of processor time; forking who has it takes a hundredth of a second.
So a child that looks bad in any way is thrown away at once, and a good one after a few videos. With `videos_per_child`
1 every video has a process of its own, which costs some 50 ms of processor time each: memory that is touched first.

Importing this package imports nothing: the zygote does it and needs neither Ray nor pydantic.
"""
