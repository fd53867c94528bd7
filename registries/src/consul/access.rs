//! The token that questions bear: read anew from its place, or got by logging in.

use std::time::{Duration, Instant};

use http::Method;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Mutex;
use weft_core::registry::RegistryError;

use super::settings::LoginSettings;
use crate::{
    credential::{Credential, Token},
    http_client::{Call, HttpClient},
};

/// How long a token that was read is used before its place is looked at again.
const READ_AGAIN: Duration = Duration::from_secs(1);
/// For how long a token that was given at a login is used: until it is refused, which its end is noticed by.
const UNTIL_REFUSED: Duration = Duration::from_secs(365 * 24 * 3600);

/// Where tokens come from.
#[derive(Debug)]
pub(super) struct Access {
    credential: Credential,
    login: Option<LoginSettings>,
    held: Mutex<Option<Held>>,
}

#[derive(Debug)]
struct Held {
    token: Option<Token>,
    /// When it is to be got again.
    until: Instant,
}

/// What Consul answers to a login.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct LoggedIn {
    #[serde(rename = "SecretID")]
    secret: String,
}

impl Access {
    pub(super) fn new(credential: Credential, login: Option<LoginSettings>) -> Self {
        Self { credential, login, held: Mutex::default() }
    }

    /// Whether tokens are got by logging in.
    pub(super) fn logs_in(&self) -> bool {
        self.login.is_some()
    }

    /// The token to ask with; none for an anonymous question.
    pub(super) async fn token(&self, http: &HttpClient) -> Result<Option<Token>, RegistryError> {
        let mut held = self.held.lock().await;
        if let Some(known) = held.as_ref().filter(|known| Instant::now() < known.until) {
            return Ok(known.token.clone());
        }
        self.get(http, &mut held).await
    }

    /// Another token than the one that was refused, where there is one by now.
    pub(super) async fn another(
        &self,
        http: &HttpClient,
        refused: Option<&Token>,
    ) -> Result<Option<Token>, RegistryError> {
        let mut held = self.held.lock().await;
        let known = held.as_ref().and_then(|known| known.token.clone());
        // Many questions are refused at once when a token ends; the first of them gets the next one.
        let token = if known.as_ref() == refused { self.get(http, &mut held).await? } else { known };
        Ok(token.filter(|token| Some(token) != refused))
    }

    async fn get(&self, http: &HttpClient, held: &mut Option<Held>) -> Result<Option<Token>, RegistryError> {
        let (token, lives) = match &self.login {
            Some(login) => (Some(log_in(http, login).await?), UNTIL_REFUSED),
            None => (self.credential.token().await?, READ_AGAIN),
        };
        *held = Some(Held { token: token.clone(), until: Instant::now() + lives });
        Ok(token)
    }
}

/// Logs in by an auth method.
async fn log_in(http: &HttpClient, login: &LoginSettings) -> Result<Token, RegistryError> {
    let bearer = Credential::File(login.token_file.clone()).token().await?;
    let bearer = bearer.as_ref().map_or("", Token::secret);
    let body = json!({ "AuthMethod": login.method, "BearerToken": bearer }).to_string();
    let call = Call::new(Method::POST, "/v1/acl/login").body("application/json", body).secret(bearer);
    let answer = http.send(call).await?;
    let answer = answer.ok()?;
    // What is said about an answer that cannot be read must not hold the token in it.
    let unreadable = || RegistryError::Malformed("the answer to the login cannot be read".into());
    let given: LoggedIn = answer.json().map_err(|_| unreadable())?;
    Token::new(&given.secret).map_err(|_| unreadable())
}
