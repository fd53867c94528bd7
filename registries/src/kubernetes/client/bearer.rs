//! Whose token is shown with each question: a plugin's, or a file's.
//!
//! Not kube's own reader of such a file: that one takes the newline for a part of the token with which editors and templates
//! end every file, and names no file then.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{HeaderValue, Request, header::AUTHORIZATION};
use kube::config::AuthInfo;
use tokio::time::Instant;
use weft_core::registry::RegistryError;

use super::{
    config::{UNFIT_TOKEN, denied},
    plugin::Plugin,
};
use crate::credential::{Credential, Token};

/// How long a file is not read again.
const FRESH: Duration = Duration::from_secs(5);

/// Who gives the token.
#[derive(Clone)]
pub(super) enum Bearer {
    Plugin(Arc<Plugin>),
    File(Arc<TokenFile>),
}

/// A file that holds a token, and what it held last.
pub(super) struct TokenFile {
    file: Credential,
    held: Mutex<Option<(Token, Instant)>>,
}

impl Bearer {
    /// The file that a user of a kubeconfig names, where nothing stands there that comes before it; it stands there no more
    /// then.
    ///
    /// # Errors
    /// Says why it holds no token.
    pub(super) async fn file(user: &mut AuthInfo) -> Result<Option<Self>, RegistryError> {
        let has_password = user.username.is_some() && user.password.is_some();
        let stands = user.auth_provider.is_some() || has_password || user.token.is_some();
        let Some(path) = user.token_file.take_if(|_| !stands) else { return Ok(None) };
        let file = Credential::File(PathBuf::from(path));
        let file = TokenFile { file, held: Mutex::default() };
        file.token().await?;
        Ok(Some(Self::File(Arc::new(file))))
    }

    /// Shows the token with a question, where there is one.
    ///
    /// # Errors
    /// Says which plugin or file gave none, and why.
    pub(super) async fn show<B>(self, mut request: Request<B>) -> Result<Request<B>, RegistryError> {
        let token = match self {
            Self::Plugin(plugin) => plugin.token().await?,
            Self::File(file) => Some(file.token().await?),
        };
        if let Some(token) = token {
            let value = HeaderValue::from_str(&format!("Bearer {}", token.secret()));
            let mut value = value.map_err(|_| denied(UNFIT_TOKEN))?;
            value.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        Ok(request)
    }
}

impl TokenFile {
    async fn token(&self) -> Result<Token, RegistryError> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((token, _)) = held.as_ref().filter(|(_, read_at)| read_at.elapsed() < FRESH) {
            return Ok(token.clone());
        }
        let read = self.file.token().await;
        // A file that is taken away after the start, to show it to nobody, takes nothing away; nor does one half written.
        let token = match (read, held) {
            (Ok(Some(token)), _) | (_, Some((token, _))) => token,
            (Ok(None), None) => return Err(denied("its file names no token")),
            (Err(RegistryError::Denied(why)), None) => return Err(denied(&why)),
            (Err(error), None) => return Err(error),
        };
        let held = Some((token.clone(), Instant::now()));
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = held;
        Ok(token)
    }
}
