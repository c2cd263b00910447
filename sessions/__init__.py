"""The stateful core of Unbroken: conversations that outlive their connections.

Words, used throughout and nowhere otherwise:

node
    One server process.
session
    One conversation: configuration, items, the current turn, the event log.
    At any time one node owns it.
item
    A message of the conversation.
turn
    One user input and the response it produces. Each try at it is an
    *attempt* with a response id of its own.
event log
    The session's append-only, contiguous record of what happened. The only
    truth: everything a client sees is read from it, live and later alike.
entry
    One record of the log. It takes up one sequence number, or several when it
    holds several pieces of an answer.
position
    A place in a log: incarnation, sequence, nonce. Clients hold it as a cursor.
cursor
    One connection's place in one log. It has no queue: a slow connection is
    simply further behind.
input / output
    An entry submitted by a connection, through any node / an entry appended by
    the owner alone, fenced.
floor
    The highest sequence number that the log has forgotten.
handoff
    Moving a session's ownership from node to node. (Agent frameworks use the
    word for passing a conversation from agent to agent. Not here.)

Reading order: :mod:`~unbroken.sessions.turn`, :mod:`~unbroken.sessions.entries`,
:mod:`~unbroken.sessions.event_log`, :mod:`~unbroken.sessions.session`,
:mod:`~unbroken.sessions.backends.base`, :mod:`~unbroken.sessions.actor`,
:mod:`~unbroken.sessions.hub`, :mod:`~unbroken.sessions.node`.
"""
