# A Nomad client in tests. Its ports are in a second file.
bind_addr            = "127.0.0.1"
disable_update_check = true

# Nomad takes loopback only when told so.
advertise {
  http = "127.0.0.1"
  rpc  = "127.0.0.1"
  serf = "127.0.0.1"
}

client {
  enabled           = true
  network_interface = "lo"

  # They ask the clouds' metadata addresses, which takes seconds where there are none.
  options {
    "fingerprint.denylist" = "env_aws,env_gce,env_azure,env_digitalocean"
  }
}

plugin "raw_exec" {
  config {
    enabled = true
  }
}

consul {
  address          = "127.0.0.1:1"
  auto_advertise   = false
  client_auto_join = false
}
