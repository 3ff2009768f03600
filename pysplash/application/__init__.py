"""What an application defines: tasks, hooks, handlers of bytes, pipeline stages, coprocesses."""
