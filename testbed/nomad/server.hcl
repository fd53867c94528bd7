# A Nomad server in tests. Its ports are in a second file.
bind_addr            = "127.0.0.1"
disable_update_check = true

# Nomad takes loopback only when told so.
advertise {
  http = "127.0.0.1"
  rpc  = "127.0.0.1"
  serf = "127.0.0.1"
}

server {
  enabled          = true
  bootstrap_expect = 1
  raft_multiplier  = 1

  # A dead client is noticed within seconds.
  heartbeat_grace   = "5s"
  min_heartbeat_ttl = "3s"
}

# Nobody listens there: a Consul agent on this machine must not be joined by chance.
consul {
  address          = "127.0.0.1:1"
  auto_advertise   = false
  server_auto_join = false
}
