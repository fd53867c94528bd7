//! Which local process may call.

use weft_core::{publish::Publisher, resource::AppProtocol};
use weft_proxy::{AllowedLocal, OutboundKind, Proxy};

use crate::{
    application::Application,
    authority::Authority,
    client::Client1,
    world::{
        Serving, calling_config, calling_table, endpoint, identity, open_to_domain, outbound_of, serving_host,
    },
};

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn another_user_is_refused_by_number() {
    let authority = Authority::new();
    let application = Application::start("v1").await;
    let authorization = open_to_domain();
    let serving = Serving { address: application.address, protocol: AppProtocol::Http, authorization };
    let reviews = serving_host(&authority, serving);
    let table = calling_table(vec![endpoint("r1", application.address, &reviews)], AppProtocol::Http, 1);
    let table = Publisher::new(table);
    let credentials = Publisher::new(authority.credentials(&[&identity("web")]));
    let own = std::os::linux::fs::MetadataExt::st_uid(&std::fs::metadata("/proc/self").unwrap());
    for (uids, status) in [(vec![own], 200), (vec![own + 1], 403)] {
        let config = calling_config(OutboundKind::ByHost, AllowedLocal::Uids(uids));
        let proxy = Proxy::start(config, table.reader(), credentials.reader()).unwrap();
        let mut client = Client1::connect(outbound_of(&proxy)).await;
        let reply = client.get("reviews", "/").await.unwrap();
        assert_eq!(reply.status, status);
        if status == 403 {
            assert!(reply.text().contains(&format!("user {own} may not")), "{}", reply.text());
        }
    }
    assert_eq!(application.requests.load(std::sync::atomic::Ordering::Relaxed), 1);
}
