"""How is a person told that something happened to a sweep?

Main path: `messages.Narrator` reads the events of a sweep and says what is worth a message,
`outbox` keeps each message for each destination until it is sent, `senders` sends one, and
`delivery.Sender` does all of it in one pass; `notifier.Notifier` does so beside a driver, again and
again, and `delivery.send_waiting` once, for `posetune notify --flush`. `announcing` tells of what
no event says, such as a promotion.

Why not Apprise: it would bring many more services, but its addresses hold the secrets in
themselves, it signs nothing, and it has no id by which a receiver knows a repeated message.
"""
