package weft.testbed;

import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.cloud.client.ServiceInstance;
import org.springframework.cloud.client.discovery.DiscoveryClient;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.RestController;

/** A Spring application that registers itself with Eureka and shows, at /services, what its client has fetched. */
@RestController
@SpringBootApplication
public class SpringClient {
  private final DiscoveryClient discovery;

  SpringClient(DiscoveryClient discovery) {
    this.discovery = discovery;
  }

  /** The instances of every service, each as its address and metadata. */
  @GetMapping("/services")
  Map<String, List<Instance>> services() {
    var services = new TreeMap<String, List<Instance>>();
    for (String name : discovery.getServices()) {
      services.put(name, discovery.getInstances(name).stream().map(Instance::of).toList());
    }
    return services;
  }

  record Instance(String id, String uri, boolean secure, Map<String, String> metadata) {
    static Instance of(ServiceInstance instance) {
      return new Instance(
          instance.getInstanceId(),
          instance.getUri().toString(),
          instance.isSecure(),
          instance.getMetadata());
    }
  }

  public static void main(String[] arguments) {
    SpringApplication.run(SpringClient.class, arguments);
  }
}
