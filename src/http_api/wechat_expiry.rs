//! The `expires_in` of WeChat's own calls: how long the value can be relied on, and more only where an SDK is known to
//! take harm from a short answer. Pure.
//!
//! SDKs subtract something from `expires_in` and keep the token for the rest. If nothing is left, some keep it forever and
//! some fail; `docs/en/sdk.md` lists them. What is added here is less than what they subtract.

/// The calls that answer with `expires_in`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenEndpoint {
    Token,
    StableToken,
    Gettoken,
    Ticket,
}

/// What is known of the client that asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SdkClient {
    /// It subtracts 1500 s (300 s with the stable call), and takes harm if nothing is left.
    SubtractsMost,
    Other,
}

/// WxJava subtracts 200 s; with Redisson it keeps a token forever if nothing is left.
const LEAST_S: u64 = 210;
/// silenceper/wechat subtracts 1500 s and fails with Redis if nothing is left; EasyWeChat 3 then keeps the token forever.
const SUBTRACTED_MOST_S: u64 = 1_560;
/// silenceper/wechat subtracts 300 s with the stable call.
const SUBTRACTED_OF_STABLE_S: u64 = 360;
/// What SDKs subtract whose cache takes 0 for forever (dodgepudding, EasyWeChat's tickets, EasyWeChat 3).
const SUBTRACTED_S: [u64; 3] = [100, 500, 1_500];

impl SdkClient {
    /// By the user agent and the order of the parameters. silenceper/wechat has the order of WeChat's documentation, while
    /// other Go SDKs sort them; of the SDKs with Guzzle only EasyWeChat 3 puts the app first.
    pub fn detect(agent: &[u8], query: &str) -> SdkClient {
        let begins = |prefix: &str| query.starts_with(prefix);
        let go = agent.starts_with(b"Go-http-client/")
            && (query.is_empty() || begins("grant_type=client_credential&appid=") || begins("corpid="));
        let guzzle = agent.starts_with(b"GuzzleHttp/") && begins("appid=");
        if go || guzzle { SdkClient::SubtractsMost } else { SdkClient::Other }
    }
}

/// The `expires_in` to answer with. `min_s` is the configured minimum for all calls and clients.
pub fn expires_in_s(reliable_s: u64, endpoint: TokenEndpoint, client: SdkClient, min_s: Option<u32>) -> u64 {
    let least_s = match (endpoint, client) {
        (TokenEndpoint::Ticket, _) | (TokenEndpoint::Token | TokenEndpoint::Gettoken, SdkClient::SubtractsMost) => {
            SUBTRACTED_MOST_S
        }
        (TokenEndpoint::StableToken, SdkClient::SubtractsMost) => SUBTRACTED_OF_STABLE_S,
        (TokenEndpoint::Token | TokenEndpoint::StableToken, SdkClient::Other) => LEAST_S,
        // WeCom gives no new token near the end of the old one, and 0 counts as absent (PowerWeChat, dodgepudding).
        (TokenEndpoint::Gettoken, SdkClient::Other) => 1,
    };
    let expires_in_s = reliable_s.max(min_s.map_or(least_s, u64::from));
    expires_in_s - u64::from(SUBTRACTED_S.contains(&expires_in_s))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GO: &[u8] = b"Go-http-client/1.1";
    const AS_DOCUMENTED: &str = "grant_type=client_credential&appid=wx1&secret=s";
    const SORTED: &str = "appid=wx1&grant_type=client_credential&secret=s";
    const APP_FIRST: &str = "appid=wx1&secret=s&grant_type=client_credential";

    #[test]
    fn the_two_sdks_that_take_harm_are_known_by_their_requests() {
        for (agent, query, client) in [
            (GO, AS_DOCUMENTED, SdkClient::SubtractsMost),
            (GO, SORTED, SdkClient::Other),
            (GO, "", SdkClient::SubtractsMost),
            (GO, "corpid=ww1&corpsecret=s", SdkClient::SubtractsMost),
            (b"GuzzleHttp/6.5.5 curl/7.88.1 PHP/7.4.33".as_slice(), APP_FIRST, SdkClient::SubtractsMost),
            (b"GuzzleHttp/7".as_slice(), AS_DOCUMENTED, SdkClient::Other),
            (b"".as_slice(), AS_DOCUMENTED, SdkClient::Other),
            (b"python-requests/2.31.0".as_slice(), APP_FIRST, SdkClient::Other),
        ] {
            assert_eq!(SdkClient::detect(agent, query), client, "{} {query}", String::from_utf8_lossy(agent));
        }
    }

    #[test]
    fn the_truth_is_told_except_to_sdks_that_it_harms() {
        let expires_in = |reliable_s, call, client| expires_in_s(reliable_s, call, client, None);
        assert_eq!(expires_in(4_953, TokenEndpoint::Token, SdkClient::Other), 4_953);
        assert_eq!(expires_in(299, TokenEndpoint::Token, SdkClient::Other), 299);
        assert_eq!(expires_in(299, TokenEndpoint::Token, SdkClient::SubtractsMost), 1_560);
        assert_eq!(expires_in(1, TokenEndpoint::StableToken, SdkClient::Other), 210);
        assert_eq!(expires_in(299, TokenEndpoint::StableToken, SdkClient::SubtractsMost), 360);
        assert_eq!(expires_in(0, TokenEndpoint::Gettoken, SdkClient::Other), 1);
        assert_eq!(
            expires_in_s(299, TokenEndpoint::Token, SdkClient::SubtractsMost, Some(60)),
            299,
            "the operator's word"
        );
        assert_eq!(expires_in_s(299, TokenEndpoint::Token, SdkClient::Other, Some(1_560)), 1_560);
    }

    #[test]
    fn no_sdk_is_left_with_exactly_nothing() {
        for left_s in 1..7_200 {
            for subtracted_s in [100, 200, 500, 1_500] {
                assert_ne!(
                    expires_in_s(left_s, TokenEndpoint::Token, SdkClient::Other, None),
                    subtracted_s,
                    "{left_s}"
                );
            }
        }
    }
}
