//! The token that questions bear: read anew from its place, or got by logging in, and then given back in the end.

use std::time::{Duration, Instant};

use http::{HeaderName, Method, StatusCode};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Mutex;
use weft_core::registry::RegistryError;

use super::{client::is_refusal, settings::LoginSettings};
use crate::{
    credential::{Credential, Token},
    http_client::{Answer, Call, HttpClient},
};

/// The header that a token is shown in.
pub(super) const TOKEN: HeaderName = HeaderName::from_static("x-consul-token");
/// How long logging out may take: an agent that stops waits for it.
const LOGGING_OUT: Duration = Duration::from_secs(2);
/// How long a token that was read is used before its place is looked at again.
const READ_AGAIN: Duration = Duration::from_secs(1);
/// For how long a token that was given at a login is used: until it is refused, which its end is noticed by.
const UNTIL_REFUSED: Duration = Duration::from_secs(365 * 24 * 3600);

/// What Consul says of what was shown at a login and is not valid, or not any more; with the status of a failure of its own.
const INVALID: [&str; 4] =
    ["validated the token signature", "error validating claims", "error parsing token", "missing jwt"];

/// Where tokens come from.
#[derive(Debug)]
pub(super) struct Access {
    credential: Credential,
    login: Option<LoginSettings>,
    held: Mutex<Holding>,
}

#[derive(Debug, Default)]
enum Holding {
    #[default]
    Nothing,
    Held(Held),
    /// It was given back: nobody logs in again.
    Over,
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
        let mut holding = self.held.lock().await;
        if let Some(known) = holding.held().filter(|known| Instant::now() < known.until) {
            return Ok(known.token.clone());
        }
        self.get(http, &mut holding).await
    }

    /// Another token than the one that was refused, where there is one by now.
    pub(super) async fn another(
        &self,
        http: &HttpClient,
        refused: Option<&Token>,
    ) -> Result<Option<Token>, RegistryError> {
        let mut holding = self.held.lock().await;
        let known = holding.held().and_then(|known| known.token.clone());
        // Many questions are refused at once when a token ends; the first of them gets the next one.
        let token = if known.as_ref() == refused { self.get(http, &mut holding).await? } else { known };
        Ok(token.filter(|token| Some(token) != refused))
    }

    /// Gives back a token that was given at a login: nobody asks any more.
    pub(super) async fn log_out(&self, http: &HttpClient) {
        let holding = std::mem::replace(&mut *self.held.lock().await, Holding::Over);
        if self.logs_in()
            && let Some(token) = holding.held().and_then(|held| held.token.as_ref())
        {
            log_out(http, token).await;
        }
    }

    async fn get(&self, http: &HttpClient, holding: &mut Holding) -> Result<Option<Token>, RegistryError> {
        let (token, lives) = match &self.login {
            Some(_) if matches!(holding, Holding::Over) => {
                return Err(RegistryError::Denied("the login was given back".into()));
            }
            Some(login) => (Some(log_in(http, login).await?), UNTIL_REFUSED),
            None => (self.credential.token().await?, READ_AGAIN),
        };
        let held = Held { token: token.clone(), until: Instant::now() + lives };
        let before = std::mem::replace(holding, Holding::Held(held));
        if self.logs_in()
            && let Some(before) = before.held().and_then(|held| held.token.as_ref())
        {
            // It is not known any more, or merely not known yet to the server that refused it.
            log_out(http, before).await;
        }
        Ok(token)
    }
}

impl Holding {
    fn held(&self) -> Option<&Held> {
        match self {
            Self::Held(held) => Some(held),
            Self::Nothing | Self::Over => None,
        }
    }
}

/// Logs in by an auth method.
async fn log_in(http: &HttpClient, login: &LoginSettings) -> Result<Token, RegistryError> {
    let bearer = Credential::File(login.token_file.clone()).token().await?;
    let bearer = bearer.as_ref().map_or("", Token::secret);
    let body = json!({ "AuthMethod": login.method, "BearerToken": bearer }).to_string();
    let call = Call::new(Method::POST, "/v1/acl/login").body("application/json", body).secret(bearer);
    let answer = http.send(call).await?;
    if is_refused(&answer) {
        return Err(RegistryError::Denied(answer.told()));
    }
    let answer = answer.ok()?;
    // What is said about an answer that cannot be read must not hold the token in it.
    let unreadable = || RegistryError::Malformed("the answer to the login cannot be read".into());
    let given: LoggedIn = answer.json().map_err(|_| unreadable())?;
    Token::new(&given.secret).map_err(|_| unreadable())
}

/// Whether a login was refused.
fn is_refused(answer: &Answer) -> bool {
    let is_invalid = || {
        let said = answer.said();
        INVALID.iter().any(|words| said.contains(words))
    };
    is_refusal(answer) || (answer.status == StatusCode::INTERNAL_SERVER_ERROR && is_invalid())
}

/// Logs out, as far as the server is there: what is not given back ends when the auth method says.
async fn log_out(http: &HttpClient, token: &Token) {
    let call = Call::new(Method::POST, "/v1/acl/logout").header(TOKEN, token.secret(), true);
    match http.send(call.within(LOGGING_OUT)).await.and_then(Answer::ok) {
        Ok(_) => tracing::debug!("logged out of Consul"),
        Err(error) => tracing::debug!(%error, "not logged out of Consul: the login ends by itself"),
    }
}
