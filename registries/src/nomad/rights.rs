//! The rights that following needs, in the words of Nomad's policies, asked for one by one.

use weft_core::registry::{RegistryError, Right};

use super::{
    access::{hidden, may_read_all, right},
    client::Client,
    settings::{Namespaces, NomadSettings},
    variables,
};

/// Asks for all of them.
pub(super) async fn ask(settings: &NomadSettings) -> Result<Vec<Right>, RegistryError> {
    let client = Client::new(settings)?;
    client.check_token().await?;
    let mut rights = Vec::new();
    let needed_for = "services, allocations and checks";
    match &settings.namespaces {
        Namespaces::All => {
            let given = Some(may_read_all(&client).await?);
            rights.push(Right { name: right("*"), given, needed_for: needed_for.into(), optional: false });
            if given == Some(true) {
                rights.extend(hidden(&client).await?.iter().map(|namespace| Right {
                    name: right(namespace),
                    given: Some(false),
                    needed_for: format!("{needed_for}: a rule of its own hides them"),
                    optional: false,
                }));
            }
        }
        Namespaces::These(namespaces) => {
            for namespace in namespaces {
                let given = Some(client.may_read_services(namespace).await?);
                let needed_for = needed_for.into();
                rights.push(Right { name: right(namespace), given, needed_for, optional: false });
            }
        }
    }
    rights.push(Right {
        name: "node { policy = \"read\" }".into(),
        given: Some(client.may_read_nodes().await?),
        needed_for: "mesh ports in the meta of nodes, node names and classes".into(),
        optional: true,
    });
    if let Some(place) = &settings.variables {
        let probe = format!("{}{}", place.prefix, variables::NO_VARIABLE);
        rights.push(Right {
            name: variables::right(place),
            given: Some(client.may_read_variable(&place.namespace, &probe).await?),
            needed_for: "routes and policies".into(),
            optional: false,
        });
    }
    Ok(rights)
}
