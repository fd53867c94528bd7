job "SERVICE" {
  group "all" {
    count = COUNT

    network {
      port "http" {}
    }

    service {
      name     = "SERVICE"
      provider = "nomad"
      port     = "http"
      tags     = ["weft-identity=IDENTITY"]

      check {
        type     = "http"
        path     = "/up"
        interval = "1s"
        timeout  = "1s"
      }
    }

    task "server" {
      driver = "raw_exec"

      config {
        command = "/usr/bin/env"
        args    = ["python3", "local/server.py"]
      }

      template {
        destination = "local/server.py"
        data        = <<PROGRAM
import http.server, os
mark = os.environ["NOMAD_ALLOC_DIR"] + "/ails"
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(503 if os.path.exists(mark) else 200)
        self.send_header("content-length", "0")
        self.end_headers()
address = (os.environ["NOMAD_IP_http"], int(os.environ["NOMAD_PORT_http"]))
http.server.ThreadingHTTPServer(address, Handler).serve_forever()
PROGRAM
      }

      resources {
        cpu    = 20
        memory = 64
      }
    }
  }
}
