"""The pages: server-rendered, without a build step; live by the same server-sent events that programs use."""
