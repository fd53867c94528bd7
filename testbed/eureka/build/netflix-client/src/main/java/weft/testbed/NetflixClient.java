package weft.testbed;

import com.netflix.appinfo.ApplicationInfoManager;
import com.netflix.appinfo.InstanceInfo;
import com.netflix.appinfo.InstanceInfo.InstanceStatus;
import com.netflix.appinfo.MyDataCenterInstanceConfig;
import com.netflix.appinfo.providers.EurekaConfigBasedInstanceInfoProvider;
import com.netflix.config.ConfigurationManager;
import com.netflix.discovery.DefaultEurekaClientConfig;
import com.netflix.discovery.DiscoveryClient;
import com.netflix.discovery.shared.Application;
import com.netflix.discovery.shared.transport.jersey3.Jersey3TransportClientFactories;
import java.util.Map;
import java.util.TreeMap;

/**
 * Netflix's own client. Arguments: EUREKA-URL APPLICATION PORT. Registers 127.0.0.1:PORT and prints a line whenever what
 * it has fetched changes: {@code seen HASH ID=STATUS …}. Ends with its standard input, or by SIGTERM; both deregister.
 */
public class NetflixClient {
  private static final long LOOK_EVERY_MS = 100;

  public static void main(String[] arguments) throws Exception {
    configure(arguments[0], arguments[1], arguments[2]);
    var instance = new Instance(arguments[1] + ":" + arguments[2]);
    var manager =
        new ApplicationInfoManager(
            instance, new EurekaConfigBasedInstanceInfoProvider(instance).get());
    var client =
        new DiscoveryClient(
            manager,
            new DefaultEurekaClientConfig(),
            new Jersey3TransportClientFactories(),
            null);
    Runtime.getRuntime().addShutdownHook(new Thread(client::shutdown));
    manager.setInstanceStatus(InstanceStatus.UP);
    var printer = new Thread(() -> printChanges(client));
    printer.setDaemon(true);
    printer.start();
    while (System.in.read() >= 0) {}
    System.exit(0);
  }

  private static void configure(String url, String application, String port) {
    Map.of(
            "eureka.serviceUrl.default", url,
            "eureka.name", application,
            "eureka.vipAddress", application,
            "eureka.port", port,
            "eureka.shouldUseDns", "false",
            "eureka.client.refresh.interval", "1",
            "eureka.appinfo.initial.replicate.time", "0",
            "eureka.appinfo.replicate.interval", "1",
            "eureka.lease.renewalInterval", "1",
            "eureka.lease.duration", "3")
        .forEach(ConfigurationManager.getConfigInstance()::setProperty);
  }

  private static void printChanges(DiscoveryClient client) {
    String last = "";
    while (true) {
      var applications = client.getApplications();
      var seen = new TreeMap<String, InstanceStatus>();
      for (Application application : applications.getRegisteredApplications()) {
        for (InstanceInfo instance : application.getInstances()) {
          seen.put(instance.getId(), instance.getStatus());
        }
      }
      var line = new StringBuilder("seen ").append(applications.getAppsHashCode());
      seen.forEach((id, status) -> line.append(' ').append(id).append('=').append(status));
      if (!line.toString().equals(last)) {
        last = line.toString();
        System.out.println(last);
      }
      try {
        Thread.sleep(LOOK_EVERY_MS);
      } catch (InterruptedException end) {
        return;
      }
    }
  }

  /** On loopback, whatever this machine is called. */
  private static final class Instance extends MyDataCenterInstanceConfig {
    private final String id;

    Instance(String id) {
      this.id = id;
    }

    @Override
    public String getInstanceId() {
      return id;
    }

    @Override
    public String getHostName(boolean refresh) {
      return "127.0.0.1";
    }

    @Override
    public String getIpAddress() {
      return "127.0.0.1";
    }
  }
}
