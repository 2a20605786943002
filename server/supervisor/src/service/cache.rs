//! What may an invocation do with the global cache? The three calls, once it has proven who it is.

use outrigger_proto::v1::{
    CacheDeleteReply, CacheDeleteRequest, CacheGetReply, CacheGetRequest, CachePutReply,
    CachePutRequest,
};
use tokio::time::Instant;
use tonic::Status;

use crate::{peer::Peer, registry::Registry};

pub(super) async fn get(
    registry: &Registry,
    peer: Option<&Peer>,
    request: CacheGetRequest,
) -> Result<CacheGetReply, Status> {
    let active = registry.authorize(&request.invocation, &request.key, peer)?;
    let found = async { Ok(registry.cache.lock().get(&request.name, Instant::now())) };
    // Copied in here, after the lock was released.
    let value = active.call(found).await?.map(Vec::from);
    Ok(CacheGetReply { value })
}

pub(super) async fn put(
    registry: &Registry,
    peer: Option<&Peer>,
    request: CachePutRequest,
) -> Result<CachePutReply, Status> {
    let active = registry.authorize(&request.invocation, &request.key, peer)?;
    let (name, ttl_s) = (request.name, request.ttl_s);
    let mut value = request.value;
    value.shrink_to_fit();
    let stored = async {
        let mut cache = registry.cache.lock();
        Ok(cache.put(name, value.into(), ttl_s, Instant::now()))
    };
    let error = match active.call(stored).await? {
        Ok(()) => String::new(),
        Err(error) => error.to_string(),
    };
    Ok(CachePutReply { error })
}

pub(super) async fn delete(
    registry: &Registry,
    peer: Option<&Peer>,
    request: CacheDeleteRequest,
) -> Result<CacheDeleteReply, Status> {
    let active = registry.authorize(&request.invocation, &request.key, peer)?;
    let deleted = async { Ok(registry.cache.lock().delete(&request.name, Instant::now())) };
    let deleted = active.call(deleted).await?;
    Ok(CacheDeleteReply { deleted })
}
