// Package sslstream is .NET's SslStream for Go: TLS (RFC 8446, RFC 5246) over any io.ReadWriteCloser, with authentication as
// an explicit step, callbacks that validate the peer's certificate and select the own one, an inner stream that can outlive
// TLS, and properties that say what was negotiated. The TLS itself is crypto/tls.
//
// For most uses: make a [Stream] with [New], authenticate it with [Stream.AuthenticateAsClient] or
// [Stream.AuthenticateAsServer], and use it as the net.Conn that it is.
//
// # Usage
//
//	s := sslstream.New(conn) // any io.ReadWriteCloser
//	defer s.Close()
//	err := s.AuthenticateAsClient(ctx, &sslstream.ClientOptions{TargetHost: "example.com"})
//	var refused *sslstream.AuthenticationError
//	if errors.As(err, &refused) {
//		log.Printf("%v\n%v", refused.PolicyErrors, refused.Chain) // all that is wrong, not the first error
//	}
//	if err != nil {
//		return err
//	}
//	_, err = io.WriteString(s, "hello")
//
// [Dial] connects and authenticates, and a [Listener] hands out streams that are authenticated already; both work with
// net/http.
//
// Options may be shared by many streams and must not be changed after first use. What they have no field for is taken
// from their TLSConfig; what is said in both places, or cannot be honoured, is a configuration error, returned before
// anything is sent.
//
// # Verification
//
// The peer's certificates are judged once in every handshake, resumed ones included, before any application byte: the
// chain, as [ChainPolicy] says, with everything that is wrong with each certificate; then on a client the name. The result
// goes to the [RemoteCertificateValidationCallback], which has the last word; without one, anything wrong refuses the peer.
// [Requirements] for what was negotiated come last. Common names never count.
//
// # Cancellation
//
// A context that ends stops a handshake, or a call of [Stream.ReadContext] and [Stream.WriteContext], and leaves the inner
// stream open. Deadlines, timeouts and contexts work for every inner stream, also for one without deadlines: it is then read
// and written by goroutines that end when its own calls return. After a read or write was cut short the stream stays usable,
// and what was accepted is not lost: [Stream.Write] says how it goes on. A handshake cannot be resumed.
//
// # Resumption
//
// Sessions are resumed where options are shared: the client's value owns a session cache (or shares a SessionCache), the
// server's owns the ticket keys (or shares a [CertificateContext], or gets keys by [ServerOptions.SetSessionTicketKeys]). A
// session is bound to what it was made with: on a client host, application protocols, versions, suites and own certificate;
// on a server name, application protocol, versions, own certificate and what the options demand of the client. Where that
// differs a full handshake follows. Everything is verified on resumed sessions too.
//
// # Above and around TLS
//
// [Stream.ChannelBinding] ties an authentication above TLS, such as SASL's, to the session (RFC 5929, RFC 9266).
// [Stream.Security] says what was negotiated, as text, JSON or a slog group. [Stats] counts handshakes and open sessions of the
// process, and a [Trace] in the context of an authentication is told of it.
//
// # Differences from .NET
//
//   - Close sends close_notify, for up to 5 s; SslStream's Dispose does not.
//   - The validation callback returns what remains of the errors instead of a bool: an empty answer accepts.
//   - The local certificate selection callback is called when the server asks, not before the handshake as well.
//   - A timeout or a cancelled call leaves the stream usable, and nothing is lost.
//   - An end of the inner stream inside a record is io.ErrUnexpectedEOF; one between records is told from close_notify by
//     [Stream.ReceivedCloseNotify], and refused with RequireCloseNotify.
//   - AllowRenegotiation is false by default, and only clients renegotiate.
//   - Names are matched with subject alternative names only, never with the common name.
//   - Hash, key exchange and its strength are reported for all suites, TLS 1.3 included.
//   - A set of protocols with a hole is honoured on every system. A client's hello names a range all the same, so a server that
//     picks the hole is refused after the fact.
//   - Properties do not fail: what was negotiated is zero before the handshake and after a failed one, and kept after Close.
//   - docs/dotnet-migration.md has every member.
//
// # Limitations
//
// What crypto/tls does not do is not done here: renegotiation by servers and post-handshake authentication
// (NegotiateClientCertificateAsync), early data, external PSKs, record_size_limit, kernel TLS. The alert for a refused
// certificate is always bad_certificate. The TLS 1.3 suites cannot be chosen, only refused after negotiation. In TLS 1.3 a
// client learns only with its first Read that the server refused its certificate, and a server is not told when the client's
// certificate selection fails. net/http speaks HTTP/2 over a *tls.Conn only; golang.org/x/net/http2 does over a [Stream], see
// examples/https.
//
// # Revocation
//
// With [RevocationOnline] every certificate of the peer's chain but the root must be known not to be revoked: by the OCSP response
// that a server staples, by what the process remembers, by OCSP (RFC 6960), or by a CRL (RFC 5280, Section 5), in this order. No
// answer refuses the peer. [RevocationOffline] asks nobody. A server with a [CertificateContext] staples.
package sslstream
