"""The fault harness: real servers and processes, broken on purpose, and a checker that reads what a subscriber can see.

frames    what a test frame carries, so that its verdict can be told to be its own
plan      what one episode does, drawn from its seed
zygote    processes in milliseconds, each of which can be killed and stopped
roles     what these processes do: produce, judge, subscribe
stage     one server and the processes of one episode
catalogue the faults
episode   one plan, carried out
checker   the verdict over it
campaign  many episodes; `make faults`
"""
