# A web server in Nomad's own catalog, with an agent of Weft beside it as a second task. Both ports are Nomad's choice: the
# agent gets them in its template, and callers the mesh port in the service's tag.
variable "weft" {
  description = "The weft binary on the clients."
  default     = "weft"
}

job "web" {
  group "web" {
    update {
      min_healthy_time = "2s"
    }

    network {
      port "http" {}
      port "mesh" {}
    }

    service {
      name     = "web"
      provider = "nomad"
      port     = "http"
      tags     = ["version=v1", "weft-mesh-port=${NOMAD_PORT_mesh}"]

      check {
        type     = "http"
        path     = "/"
        interval = "2s"
        timeout  = "1s"
      }
    }

    task "server" {
      driver = "raw_exec"

      config {
        command = "/usr/bin/env"
        args    = ["python3", "-m", "http.server", "--bind", "${NOMAD_IP_http}", "--directory", "local", "${NOMAD_PORT_http}"]
      }

      template {
        destination = "local/index.html"
        data        = "hello from web\n"
      }

      resources {
        cpu    = 50
        memory = 64
      }
    }

    task "weft" {
      driver = "raw_exec" # or "exec"

      # Before the server starts and until after it has stopped.
      lifecycle {
        hook    = "prestart"
        sidecar = true
      }

      config {
        command = var.weft
        args    = ["agent", "--config", "local/weft.toml"]
      }

      template {
        destination = "local/weft.toml"
        change_mode = "noop" # the agent follows its file by itself
        data        = <<-TOML
          trust_domain = "example.mesh"
          state_dir = "local/state"
          run_dir = "local/run"

          [admin]
          listen = "off"

          [identity]
          kind = "files"
          directory = "secrets"

          [inbound]
          listen = "{{ env "NOMAD_ADDR_mesh" }}"

          [[workload]]
          name = "web"
          identity = "spiffe://example.mesh/ns/default/sa/web"

          [[workload.port]]
          service = "web.default"
          name = "http"
          address = "{{ env "NOMAD_ADDR_http" }}"
        TOML
      }

      # The certificate, from the one variable that every task of this job may read, and no other job. A new one is taken over
      # without a restart.
      template {
        destination = "secrets/bundle.pem"
        change_mode = "noop"
        data        = "{{ with nomadVar \"nomad/jobs/web\" }}{{ .bundle }}{{ end }}"
      }

      template {
        destination = "secrets/web.key"
        perms       = "600"
        change_mode = "noop"
        data        = "{{ with nomadVar \"nomad/jobs/web\" }}{{ .key }}{{ end }}"
      }

      template {
        destination = "secrets/web.pem"
        change_mode = "noop"
        data        = "{{ with nomadVar \"nomad/jobs/web\" }}{{ .certificate }}{{ end }}"
      }

      resources {
        cpu    = 50
        memory = 64
      }
    }
  }
}
