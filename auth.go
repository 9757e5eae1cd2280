package sslstream

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"
)

// AuthenticateAsClient runs the client's handshake. It corresponds to SslStream.AuthenticateAsClient; nil opts are all
// defaults. A stream has one attempt: another call returns ErrAlreadyAuthenticated, also while one is running.
//
// Any failure is an *AuthenticationError, except a configuration error, which is returned before anything is sent and does
// not use up the attempt. ctx's end stops the handshake and leaves the inner stream open; the error is found with
// errors.Is(err, ctx.Err()). Callbacks get a child of ctx.
//
// In TLS 1.3 a server's refusal of the client's certificate arrives after the handshake: then the first Read, and all that
// follows, return an *AuthenticationError with RemoteAlert.
func (s *Stream) AuthenticateAsClient(ctx context.Context, opts *ClientOptions) error {
	if opts == nil {
		opts = &ClientOptions{}
	}
	return s.authenticate(ctx, func(a *authentication) (*tls.Conn, error) {
		settings, err := opts.compile()
		if err != nil {
			return nil, err
		}
		if err := a.use(settings); err != nil {
			return nil, err
		}
		host, err := s.clientHost(settings)
		if err != nil {
			return nil, err
		}
		a.host = host
		a.certificates = settings.client
		if s.choose != nil {
			if settings.client.choose != nil {
				return nil, conflict("a LocalCertificateSelectionCallback", "New", "the options")
			}
			if settings.client.get != nil {
				return nil, both("New's LocalCertificateSelectionCallback", "GetClientCertificate")
			}
			a.certificates.choose = s.choose
		}
		s.role.Store(&role{targetHost: host.given, revocation: settings.policy.revocationMode})
		return tls.Client(s.transport.TLS(), a.clientConfig()), nil
	})
}

// clientHost is the target of an authentication: the options', or the one that New was given.
func (s *Stream) clientHost(settings *settings) (targetHost, error) {
	if s.host == "" {
		return settings.host, nil
	}
	host, err := parseTargetHost(s.host)
	if err == nil && settings.host.given != "" {
		if !settings.host.same(host) {
			return host, fmt.Errorf("sslstream: WithTargetHost says %q and the options say %q; name the target host once", s.host, settings.host.given)
		}
		host = settings.host
	}
	return host, err
}

// AuthenticateAsServer runs the server's handshake. It corresponds to SslStream.AuthenticateAsServer; what
// AuthenticateAsClient says of attempts, failures and ctx holds here too.
func (s *Stream) AuthenticateAsServer(ctx context.Context, opts *ServerOptions) error {
	if opts == nil {
		opts = &ServerOptions{}
	}
	return s.authenticate(ctx, func(a *authentication) (*tls.Conn, error) {
		settings, err := opts.compile()
		if err != nil {
			return nil, err
		}
		if err := a.use(settings); err != nil {
			return nil, err
		}
		s.role.Store(&role{server: true, revocation: settings.policy.revocationMode})
		return tls.Server(s.transport.TLS(), a.serverConfig()), nil
	})
}

// AuthenticateAsServerFunc is AuthenticateAsServer with options that cb chooses once the ClientHello is read. It
// corresponds to the overload with a ServerOptionsSelectionCallback. cb's error is found with errors.Is in what it returns,
// and so is a configuration error in the options it chose, which uses up the attempt.
func (s *Stream) AuthenticateAsServerFunc(ctx context.Context, cb ServerOptionsSelectionCallback) error {
	return s.authenticate(ctx, func(a *authentication) (*tls.Conn, error) {
		if cb == nil {
			return nil, errors.New("sslstream: AuthenticateAsServerFunc needs a callback")
		}
		if s.choose != nil {
			return nil, errServerChooses
		}
		if err := a.use(nil); err != nil {
			return nil, err
		}
		s.role.Store(&role{server: true})
		return tls.Server(s.transport.TLS(), &tls.Config{
			GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
				config, err := a.chosenConfig(cb, hello)
				a.callbackError = err
				return config, err
			},
		}), nil
	})
}

// chosenConfig asks cb for the options, and makes the config for this client of them.
func (a *authentication) chosenConfig(cb ServerOptionsSelectionCallback, hello *tls.ClientHelloInfo) (*tls.Config, error) {
	info := clientHelloInfo(hello)
	a.stream.role.Store(&role{server: true, targetHost: info.ServerName})
	opts, err := cb(a.ctx, a.stream, info)
	if err != nil {
		return nil, err
	}
	if opts == nil {
		return nil, errors.New("sslstream: the ServerOptionsSelectionCallback returned no options")
	}
	settings, err := opts.compile()
	if err != nil {
		return nil, err
	}
	if len(settings.base.EncryptedClientHelloKeys) > 0 || settings.base.GetEncryptedClientHelloKeys != nil {
		return nil, fmt.Errorf("sslstream: options chosen by a callback cannot have keys for Encrypted Client Hello: it is read before the callback: %w", errors.ErrUnsupported)
	}
	if err := a.use(settings); err != nil {
		return nil, err
	}
	settings.used.Store(true)
	config := a.serverConfig()
	if adapted, err := config.GetConfigForClient(hello); adapted != nil || err != nil {
		return adapted, err
	}
	return config, nil
}

// ClientHelloInfo is what a server's callbacks know of the client. It corresponds to SslClientHelloInfo.
type ClientHelloInfo struct {
	ServerName           string    // decoded from punycode; "": the client named none
	Protocols            Protocols // offered
	ApplicationProtocols []string  // offered
	Info                 *tls.ClientHelloInfo
}

func clientHelloInfo(hello *tls.ClientHelloInfo) ClientHelloInfo {
	return ClientHelloInfo{
		ServerName:           decodeServerName(hello.ServerName),
		Protocols:            protocolsOf(hello.SupportedVersions),
		ApplicationProtocols: hello.SupportedProtos,
		Info:                 hello,
	}
}

// ServerOptionsSelectionCallback chooses the options for a client once its ClientHello is read. It corresponds to the
// delegate of the same name. It runs on the goroutine that authenticates; ctx ends with the handshake.
type ServerOptionsSelectionCallback func(ctx context.Context, s *Stream, hello ClientHelloInfo) (*ServerOptions, error)

// authentication is one attempt: what ties a stream, compiled options and crypto/tls's callbacks together. It lives as
// long as the tls.Conn, for tickets and renegotiations.
type authentication struct {
	stream   *Stream
	ctx      context.Context // ends with the handshake
	settings *settings
	versions versionRange
	validate RemoteCertificateValidationCallback

	// On a client.
	host         targetHost
	certificates clientCertificates
	sessions     *clientSessions   // nil: no resumption
	offered      *x509.Certificate // what this side showed in the session that it offers to resume
	chosen       bool              // a callback chose the certificate

	// On a server.
	hello     ClientHelloInfo
	picked    bool // certificate and pickError are set
	pickedOwn *tls.Certificate
	pickError error
	until     int64 // of the session that the client offers to resume: see sessionNote

	local   *x509.Certificate // shown in this handshake
	resumed bool
	refused *refusal

	callbackError error // why a callback, or what it chose, ended the handshake
}

// refusal is this side's verdict on its peer.
type refusal struct {
	verdict verdict
	left    PolicyErrors
	err     error // the callback's, or why else
}

func (r *refusal) Error() string { return r.err.Error() }

// own is the certificate that this side showed, in this handshake or in the one of the session it resumed.
func (a *authentication) own() *x509.Certificate {
	if a.resumed && !a.settings.server {
		return a.offered
	}
	return a.local
}

var errServerChooses = errors.New("sslstream: a server has no use for a LocalCertificateSelectionCallback; set ServerCertificateSelectionCallback")

// use makes the attempt one with these settings; nil where they are not known yet.
func (a *authentication) use(settings *settings) error {
	s := a.stream
	a.validate = s.validate
	if settings == nil {
		return nil
	}
	a.settings = settings
	if settings.validate != nil {
		if s.validate != nil {
			return conflict("a RemoteCertificateValidationCallback", "New", "the options")
		}
		a.validate = settings.validate
	}
	if settings.server && s.choose != nil {
		return errServerChooses
	}
	var err error
	a.versions, err = settings.protocols()
	return err
}

// How long a failed handshake may take to send its alert.
const alertTimeout = time.Second

// authenticate runs one attempt. prepare finds configuration errors, and makes the tls.Conn.
func (s *Stream) authenticate(ctx context.Context, prepare func(*authentication) (*tls.Conn, error)) error {
	if s.closed.Load() {
		return net.ErrClosed
	}
	if !s.phase.CompareAndSwap(phaseNew, phaseAuthenticating) {
		return ErrAlreadyAuthenticated
	}
	ctx = orBackground(ctx)
	callbacks, cancel := context.WithCancel(ctx)
	defer cancel()
	a := &authentication{stream: s, ctx: callbacks}
	conn, err := (*tls.Conn)(nil), s.invalid
	if err == nil {
		conn, err = prepare(a)
	}
	if err != nil {
		if a.settings != nil {
			a.settings.compiled.forget(a.settings)
		}
		s.role.Store(nil)
		s.phase.Store(phaseNew)
		return err
	}
	if a.settings != nil {
		a.settings.used.Store(true)
	}

	count := s.countHandshake(ctx)
	err = errors.New("a callback panicked")
	defer func() {
		if err != nil {
			failure := s.authenticationError(a, err)
			s.fail(failure)
			count.done(failure)
		}
	}()
	count.start()
	err = s.transport.Handshake(ctx, s.ReadTimeout(), s.WriteTimeout(), func() error { return a.handshake(ctx, conn) })
	if err == nil && s.closed.Load() {
		err = &transportFailure{err: net.ErrClosed}
	}
	if err != nil {
		if cause := ctx.Err(); cause != nil && a.refused == nil {
			err = &transportFailure{err: cause}
		}
		failure := s.authenticationError(a, err)
		if !failure.Transport {
			s.transport.Farewell(alertTimeout)
		}
		err = nil
		s.fail(failure)
		count.done(failure)
		return failure
	}
	s.tls, s.attempt = conn, a
	a.ctx, a.hello.Info = context.Background(), nil // a renegotiation has no ctx; the rest is not needed any more
	count.done(nil)                                 // which makes it authenticated
	return nil
}

// fail makes the failure that of every later call.
func (s *Stream) fail(failure *AuthenticationError) {
	s.session.Store(nil)
	s.failure.Store(failure)
	s.transport.Release()
	s.phase.Store(phaseFailed)
}

// handshake runs crypto/tls's handshake to the point where the application may begin.
func (a *authentication) handshake(ctx context.Context, conn *tls.Conn) error {
	if err := conn.HandshakeContext(ctx); err != nil {
		return err
	}
	t := a.stream.transport
	state := conn.ConnectionState()
	if a.settings.server && state.Version == tls.VersionTLS13 && !t.IsSocket() {
		t.Post() // a ticket, which the client may not read before it has written
	} else if err := t.Flight(); err != nil {
		return err
	}
	if err := a.agreed(state); err != nil {
		a.refused = &refusal{err: err}
		return a.refused
	}
	return nil
}

// agreed completes the session by what is known once a handshake is over, and checks what is required of it.
func (a *authentication) agreed(state tls.ConnectionState) error {
	r := *a.stream.session.Load()
	state.VerifiedChains = r.state.VerifiedChains
	if a.settings.renegotiates {
		state.TLSUnique = slices.Clone(state.TLSUnique) // it is crypto/tls's own, which the next handshake overwrites
	}
	r.state, r.local = state, a.own()
	a.stream.session.Store(&r)
	return a.settings.require.check(&r, true)
}

// clientConfig is this attempt's config. Here and in serverConfig, and nowhere else, the fields are set by which
// crypto/tls would decide about the peer: it must not, because verify does.
func (a *authentication) clientConfig() *tls.Config {
	config := a.settings.base.Clone()
	config.ServerName = a.host.ascii
	config.MinVersion, config.MaxVersion = a.versions.min, a.versions.max
	config.InsecureSkipVerify = true
	config.VerifyConnection = a.verify
	if !a.certificates.none() {
		config.GetClientCertificate = a.getClientCertificate
	}
	// Without a name there is nothing to file a session under.
	if a.settings.sessions != nil && a.host.ascii != "" {
		key := a.settings.sessionKey(a.host, a.versions.allowed, &a.certificates)
		a.sessions = &clientSessions{authentication: a, cache: a.settings.sessions, key: key}
		config.ClientSessionCache = a.sessions
	}
	return config
}

// serverConfig is this attempt's config; see clientConfig.
func (a *authentication) serverConfig() *tls.Config {
	config := a.settings.base.Clone()
	config.MinVersion, config.MaxVersion = a.versions.min, a.versions.max
	config.ClientAuth = tls.NoClientCert
	if a.settings.certificateRequired {
		config.ClientAuth = tls.RequestClientCert // verify requires: it lets a callback forgive
	}
	config.VerifyConnection = a.verify
	config.GetCertificate = a.serverCertificate
	config.WrapSession, config.UnwrapSession = a.wrapSession, a.unwrapSession
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		a.hello = clientHelloInfo(hello)
		a.stream.role.Store(&role{server: true, targetHost: a.hello.ServerName, revocation: a.settings.policy.revocationMode})
		return a.adapt(config, hello), nil
	}
	return config
}

// adapt returns another config where crypto/tls would agree with the client on what it must not: a version in a hole, or
// no application protocol although both sides named some. Nil leaves it as it is.
func (a *authentication) adapt(config *tls.Config, hello *tls.ClientHelloInfo) *tls.Config {
	var adapted *tls.Config
	change := func() *tls.Config {
		if adapted == nil {
			adapted = config.Clone()
		}
		return adapted
	}
	if version, ok := a.versions.aroundHole(hello.SupportedVersions); ok {
		change().MinVersion, adapted.MaxVersion = version, version
	}
	offered := hello.SupportedProtos
	if len(config.NextProtos) > 0 && len(offered) > 0 && !slices.ContainsFunc(config.NextProtos, func(p string) bool { return slices.Contains(offered, p) }) {
		// crypto/tls lets clients of http/1.1 pass where the server speaks h2 only (golang.org/issue/46310). A protocol that
		// nobody can offer makes it send no_application_protocol (RFC 7301, Section 3.2).
		change().NextProtos = []string{rand.Text()}
	}
	return adapted
}

// getClientCertificate answers the server's request.
func (a *authentication) getClientCertificate(info *tls.CertificateRequestInfo) (*tls.Certificate, error) {
	own, asked, err := a.certificates.pick(a.ctx, a.stream, info)
	if err != nil {
		a.callbackError = err
		return nil, err
	}
	a.local = own.Leaf
	a.chosen = asked && own.Leaf != nil
	return own, nil
}

// renegotiated brings the session up to date after reading may have renegotiated it: crypto/tls insists on the server's
// certificate being the same, but what else was agreed on, and whether this side showed a certificate, may have changed.
func (a *authentication) renegotiated() error {
	state := a.stream.tls.ConnectionState()
	if !state.HandshakeComplete {
		return nil
	}
	return a.agreed(state)
}

// serverCertificate picks the certificate for this client, once.
func (a *authentication) serverCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if !a.picked {
		a.picked = true
		info := a.hello
		info.Info = hello
		a.pickedOwn, a.pickError = a.settings.servers.pick(a.ctx, a.stream, info)
		if a.pickError == nil {
			a.local = a.pickedOwn.Leaf
		}
		a.callbackError = a.pickError
	}
	return a.pickedOwn, a.pickError
}

// verify decides about the peer. crypto/tls calls it once in every handshake, full or resumed, before the application
// may begin; what it returns refuses the peer.
func (a *authentication) verify(cs tls.ConnectionState) error {
	refuse := func(v verdict, left PolicyErrors, err error) error {
		if cs.DidResume && !a.settings.server {
			// The session would bring the same certificates again, while in a full handshake the server shows what it has now.
			a.sessions.forget()
		}
		a.refused = &refusal{v, left, err}
		return a.refused
	}
	set, s := a.settings, a.stream
	a.resumed = cs.DidResume
	if !a.versions.allowed.has(cs.Version) {
		return refuse(verdict{}, 0, fmt.Errorf("the peer chose %v, which is not one of %v", protocolOf(cs.Version), a.versions.allowed))
	}
	if set.suites != nil && !slices.Contains(set.suites, cs.CipherSuite) {
		return refuse(verdict{}, 0, fmt.Errorf("the cipher suite agreed on, %s, is not one of the CipherSuites", tls.CipherSuiteName(cs.CipherSuite)))
	}

	began := time.Now()
	v := set.policy.judge(a.ctx, evidence{
		sent:     cs.PeerCertificates,
		staple:   cs.OCSPResponse,
		ofServer: !set.server,
		host:     a.host,
		required: set.certificateRequired,
		resumed:  cs.DidResume,
	}, set.now())
	if err := a.ctx.Err(); err != nil {
		return err // the verdict may be one on downloads that were cut short
	}
	cs.VerifiedChains = v.verified
	r := &session{state: cs, server: set.server, chain: v.chain, errs: v.errs, goodUntil: v.goodUntil}
	if set.server {
		r.serverCert = a.local
	} else {
		r.serverCert = r.remote()
	}
	s.session.Store(r)
	traceOf(a.ctx).validated(r.remote(), v.chain, v.errs, time.Since(began))

	left, err := v.errs, error(nil)
	if a.validate != nil {
		left, err = a.validate(a.ctx, s, r.remote(), v.chain, v.errs)
	}
	if left != 0 || err != nil {
		if err == nil {
			err = v.err(left, cs.PeerCertificates)
		}
		return refuse(v, left, err)
	}
	if set.verifyPeer != nil && (!set.server || set.certificateRequired) {
		raw := make([][]byte, len(cs.PeerCertificates))
		for i, c := range cs.PeerCertificates {
			raw[i] = c.Raw
		}
		if err := set.verifyPeer(raw, v.verified); err != nil {
			return refuse(v, 0, err)
		}
	}
	if set.verifyConnection != nil {
		if err := set.verifyConnection(cs); err != nil {
			return refuse(v, 0, err)
		}
	}
	if err := set.require.check(r, false); err != nil {
		return refuse(v, 0, err)
	}
	return nil
}
