//lint:file-ignore SA1019 a user's config may still use what is deprecated; Subjects only sees less of the system's pool

package sslstream

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// This file answers what options mean once they are checked, and what a TLSConfig adds to them.

// compiledOptions holds what options compile to: they are read once, at the first use that finds no error in them.
type compiledOptions struct {
	mu       sync.Mutex
	settings *settings
}

// forget drops settings in which a configuration error was found before they were ever used, so that the options are read
// again once they are corrected.
func (c *compiledOptions) forget(set *settings) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.settings == set && !set.used.Load() {
		c.settings = nil
	}
}

func (c *compiledOptions) once(compile func() (*settings, error)) (*settings, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.settings == nil {
		set, err := compile()
		if err != nil {
			return nil, err
		}
		set.compiled = c
		c.settings = set
	}
	return c.settings, nil
}

// settings is what options compile to. It is not modified.
type settings struct {
	compiled *compiledOptions // whose it is
	used     atomic.Bool      // by an authentication that found no error in it

	server                 bool
	base                   *tls.Config // without what is bound to one attempt
	enabled                Protocols
	minVersion, maxVersion uint16 // TLSConfig's
	suites                 []uint16
	policy                 policy
	validate               RemoteCertificateValidationCallback
	verifyPeer             func([][]byte, [][]*x509.Certificate) error // TLSConfig's
	verifyConnection       func(tls.ConnectionState) error             // TLSConfig's
	certificateRequired    bool                                        // of the peer
	require                *Requirements
	requireCloseNotify     bool
	renegotiates           bool // a client that lets the server
	now                    func() time.Time

	// A client's.
	host     targetHost
	client   clientCertificates
	sessions tls.ClientSessionCache // nil: no resumption
	offer    string                 // application protocols and suites, for the keys of sessions
	identity string                 // the certificates, likewise

	// A server's.
	servers serverCertificates
	tickets *ticketKeys // the options' own
	demands string      // on the client, as far as a session is bound to them
}

// common is what both kinds of options have.
type common struct {
	config        *tls.Config
	configRoots   *x509.CertPool // of config, for this role
	rootsField    string         // their name there
	suites        []uint16
	alpn          []string
	enabled       Protocols
	policy        *ChainPolicy
	mode          RevocationMode
	require       *Requirements
	disableResume bool
}

// conflict is the error for what may be said in one place only.
func conflict(what, here, there string) error {
	return fmt.Errorf("sslstream: %s is given both to %s and in %s; give it once", what, here, there)
}

// both is conflict for a field of ours and one of a TLSConfig's.
func both(ours, theirs string) error {
	return fmt.Errorf("sslstream: %s and TLSConfig.%s are both set; set one of them", ours, theirs)
}

// compileCommon checks what both kinds of options have, and makes settings with a base of the caller's TLSConfig.
func compileCommon(o common) (*settings, error) {
	base := &tls.Config{
		// One record for a Write of up to 16 KiB: small ones at first are for those who ask for them.
		DynamicRecordSizingDisabled: true,
	}
	if o.config != nil {
		base = o.config.Clone()
	}
	if err := refuseConfigFields(base); err != nil {
		return nil, err
	}
	set := &settings{
		base:             base,
		enabled:          o.enabled,
		minVersion:       base.MinVersion,
		maxVersion:       base.MaxVersion,
		verifyPeer:       base.VerifyPeerCertificate,
		verifyConnection: base.VerifyConnection,
		now:              base.Time,
	}
	base.VerifyPeerCertificate, base.VerifyConnection = nil, nil
	if set.now == nil {
		set.now = time.Now
	}
	if o.enabled != 0 && (base.MinVersion != 0 || base.MaxVersion != 0) {
		return nil, both("EnabledProtocols", "MinVersion or MaxVersion")
	}
	if err := o.enabled.checkSupported(); err != nil {
		return nil, err
	}

	if err := checkSuites(o.suites); err != nil {
		return nil, err
	}
	if o.suites != nil {
		if base.CipherSuites != nil {
			return nil, both("CipherSuites", "CipherSuites")
		}
		set.suites = slices.Clone(o.suites)
		base.CipherSuites = set.suites
	}

	if len(o.alpn) > 0 {
		if len(base.NextProtos) > 0 {
			return nil, both("ApplicationProtocols", "NextProtos")
		}
		base.NextProtos = slices.Clone(o.alpn)
	}
	if err := checkApplicationProtocols(base.NextProtos); err != nil {
		return nil, err
	}

	var err error
	if set.policy, err = compilePolicy(o.policy, o.mode); err != nil {
		return nil, err
	}
	if o.configRoots != nil {
		if set.policy.roots != nil {
			return nil, both("CertificateChainPolicy.CustomTrustStore", o.rootsField)
		}
		set.policy.roots = o.configRoots
	}
	base.RootCAs, base.ClientCAs = nil, nil
	set.policy.memo = newChainMemo()

	if o.require != nil {
		copied := *o.require
		if err := copied.Protocols.checkSupported(); err != nil {
			return nil, fmt.Errorf("sslstream: Require.Protocols: %w", err)
		}
		set.require = &copied
	}
	base.SessionTicketsDisabled = o.disableResume
	return set, nil
}

// refuseConfigFields refuses what must be said by a field of ours.
func refuseConfigFields(c *tls.Config) error {
	// crypto/tls itself fills the key of a config that it uses, and marks it so.
	key := c.SessionTicketKey != [32]byte{} && !strings.HasPrefix(string(c.SessionTicketKey[:]), "DEPRECATED")
	for _, f := range []struct {
		set         bool
		field, ours string
	}{
		{c.InsecureSkipVerify, "InsecureSkipVerify", "set a RemoteCertificateValidationCallback that says what it accepts"},
		{c.ClientAuth != tls.NoClientCert, "ClientAuth", "set ServerOptions.ClientCertificateRequired"},
		{c.GetConfigForClient != nil, "GetConfigForClient", "use AuthenticateAsServerFunc"},
		{c.WrapSession != nil, "WrapSession", "use ServerOptions.SetSessionTicketKeys"},
		{c.UnwrapSession != nil, "UnwrapSession", "use ServerOptions.SetSessionTicketKeys"},
		{key, "SessionTicketKey", "use ServerOptions.SetSessionTicketKeys"},
		{c.SessionTicketsDisabled, "SessionTicketsDisabled", "set DisableTLSResume"},
	} {
		if f.set {
			return fmt.Errorf("sslstream: TLSConfig.%s is not taken over; %s", f.field, f.ours)
		}
	}
	return nil
}

// checkApplicationProtocols refuses what ALPN cannot carry (RFC 7301, Section 3.1).
func checkApplicationProtocols(list []string) error {
	total := 0
	for _, p := range list {
		if len(p) == 0 || len(p) > 255 {
			return fmt.Errorf("sslstream: application protocol %q: a name has 1 to 255 octets", p)
		}
		total += 1 + len(p)
	}
	if total > 0xffff {
		return errors.New("sslstream: the ApplicationProtocols are too many for one hello")
	}
	return nil
}

// compile checks the options and reads them, once.
func (o *ClientOptions) compile() (*settings, error) {
	return o.compiled.once(func() (*settings, error) {
		shared := common{
			config: o.TLSConfig, rootsField: "RootCAs", suites: o.CipherSuites, alpn: o.ApplicationProtocols, enabled: o.EnabledProtocols,
			policy: o.CertificateChainPolicy, mode: o.CertificateRevocationCheckMode, require: o.Require, disableResume: o.DisableTLSResume,
		}
		if o.TLSConfig != nil {
			shared.configRoots = o.TLSConfig.RootCAs
		}
		set, err := compileCommon(shared)
		if err != nil {
			return nil, err
		}
		base := set.base
		set.validate = o.RemoteCertificateValidationCallback
		set.requireCloseNotify = o.RequireCloseNotify
		set.certificateRequired = true

		host := o.TargetHost
		if base.ServerName != "" {
			if host != "" {
				return nil, both("TargetHost", "ServerName")
			}
			host = base.ServerName
		}
		if set.host, err = parseTargetHost(host); err != nil {
			return nil, err
		}

		if o.AllowRenegotiation {
			if base.Renegotiation != tls.RenegotiateNever {
				return nil, both("AllowRenegotiation", "Renegotiation")
			}
			base.Renegotiation = tls.RenegotiateFreelyAsClient
		}
		set.renegotiates = base.Renegotiation != tls.RenegotiateNever

		if err := o.ClientCertificateContext.check("ClientCertificateContext"); err != nil {
			return nil, err
		}
		set.client = clientCertificates{context: o.ClientCertificateContext, choose: o.LocalCertificateSelectionCallback, get: base.GetClientCertificate}
		list, field := o.ClientCertificates, "ClientCertificates"
		if len(base.Certificates) > 0 {
			if len(list) > 0 {
				return nil, both("ClientCertificates", "Certificates")
			}
			list, field = base.Certificates, "TLSConfig.Certificates"
		}
		if set.client.get != nil && (o.ClientCertificateContext != nil || o.LocalCertificateSelectionCallback != nil || len(list) > 0) {
			return nil, both("a source of client certificates", "GetClientCertificate")
		}
		if set.client.list, err = usableCertificates(field, list); err != nil {
			return nil, err
		}

		set.sessions = o.SessionCache
		if base.ClientSessionCache != nil {
			if set.sessions != nil {
				return nil, both("SessionCache", "ClientSessionCache")
			}
			set.sessions = base.ClientSessionCache
		}
		switch {
		case o.DisableTLSResume:
			set.sessions = nil
		case set.sessions == nil:
			set.sessions = tls.NewLRUClientSessionCache(sessionCacheSize)
		}

		set.offer = fmt.Sprintf("%q|%x", base.NextProtos, slices.Sorted(slices.Values(set.suites)))
		set.identity = set.client.identity()

		// Should the server not accept Encrypted Client Hello, crypto/tls verifies its certificate by itself, before it fails.
		base.RootCAs = set.policy.roots
		base.ClientSessionCache, base.GetClientCertificate, base.Certificates = nil, nil, nil
		base.GetCertificate, base.EncryptedClientHelloKeys, base.GetEncryptedClientHelloKeys = nil, nil, nil
		return set, nil
	})
}

// sessionCacheSize is how many servers' sessions options keep of their own.
const sessionCacheSize = 256

// compile checks the options and reads them, once.
func (o *ServerOptions) compile() (*settings, error) {
	return o.compiled.once(func() (*settings, error) {
		shared := common{
			config: o.TLSConfig, rootsField: "ClientCAs", suites: o.CipherSuites, alpn: o.ApplicationProtocols, enabled: o.EnabledProtocols,
			policy: o.CertificateChainPolicy, mode: o.CertificateRevocationCheckMode, require: o.Require, disableResume: o.DisableTLSResume,
		}
		if o.TLSConfig != nil {
			shared.configRoots = o.TLSConfig.ClientCAs
		}
		set, err := compileCommon(shared)
		if err != nil {
			return nil, err
		}
		base := set.base
		set.server = true
		set.validate = o.RemoteCertificateValidationCallback
		set.requireCloseNotify = o.RequireCloseNotify
		set.certificateRequired = o.ClientCertificateRequired

		if set.servers, err = o.certificates(base); err != nil {
			return nil, err
		}
		if o.SendTrustInHandshake {
			if set.policy.roots == nil {
				return nil, errors.New("sslstream: SendTrustInHandshake needs a CertificateChainPolicy with a CustomTrustStore, whose subjects it names")
			}
			base.ClientCAs = set.policy.roots
		}

		set.tickets = &o.tickets
		if o.TLSConfig != nil {
			o.tickets.adopt(o.TLSConfig.Clone())
		}
		set.demands = o.demands(set)

		base.Certificates, base.GetCertificate, base.GetClientCertificate = nil, nil, nil
		base.NameToCertificate = nil
		base.ClientSessionCache, base.ServerName, base.Renegotiation = nil, "", tls.RenegotiateNever
		// crypto/tls would make keys for each clone of a config that has none, although set.tickets has those in use.
		if _, err := rand.Read(base.SessionTicketKey[:]); err != nil {
			return nil, err
		}
		base.SetSessionTicketKeys([][32]byte{base.SessionTicketKey})
		return set, nil
	})
}

// certificates finds the one source of certificates.
func (o *ServerOptions) certificates(base *tls.Config) (serverCertificates, error) {
	c := serverCertificates{context: o.ServerCertificateContext, choose: o.ServerCertificateSelectionCallback}
	if err := c.context.check("ServerCertificateContext"); err != nil {
		return c, err
	}
	given := o.ServerCertificate != nil || o.ServerCertificateContext != nil
	config := len(base.Certificates) > 0 || base.GetCertificate != nil || base.NameToCertificate != nil
	switch {
	case c.choose != nil && given:
		return c, errors.New("sslstream: ServerCertificateSelectionCallback and a ServerCertificate or ServerCertificateContext are both set; set one source of certificates")
	case config && (given || c.choose != nil):
		return c, both("a source of server certificates", "Certificates or GetCertificate")
	case config:
		c.config = base.Clone()
		var err error
		c.config.Certificates, err = usableCertificates("TLSConfig.Certificates", base.Certificates)
		return c, err
	case o.ServerCertificateContext == nil && o.ServerCertificate != nil:
		usable, err := usableCertificate(*o.ServerCertificate)
		if err != nil {
			return c, fmt.Errorf("sslstream: ServerCertificate: %w", err)
		}
		c.single = &usable
	case !given && c.choose == nil:
		return c, errors.New("sslstream: a server needs a certificate; set ServerCertificate, ServerCertificateContext or ServerCertificateSelectionCallback")
	}
	return c, nil
}

// demands is what a session is bound to, beside names and versions: it must be the same in every process that shares
// the ticket keys, so callbacks are not in it. They run on resumed sessions anyway.
func (o *ServerOptions) demands(set *settings) string {
	p := &set.policy
	trust := "system"
	if p.roots != nil {
		subjects := p.roots.Subjects()
		slices.SortFunc(subjects, slices.Compare)
		trust = fmt.Sprintf("%x", subjects)
	}
	suites := slices.Sorted(slices.Values(set.suites))
	require := Requirements{}
	if set.require != nil {
		require = *set.require
	}
	all := fmt.Sprintf("%v %v %v %v %v %v %v %+v %s", set.certificateRequired, suites, p.usages, p.policies, p.ignore, p.at.Unix(), p.revocationMode, require, trust)
	hash := sha256.Sum256([]byte(all))
	return string(hash[:])
}

// ticketKeeper is the config whose keys tickets are made with: those given to the options, else the context's, else the
// options' own.
func (set *settings) ticketKeeper() *tls.Config {
	if set.servers.context != nil && !set.tickets.areGiven() {
		return set.servers.context.tickets.keeper()
	}
	return set.tickets.keeper()
}

// moment is the time that chains are verified for.
func (set *settings) moment() time.Time {
	if !set.policy.at.IsZero() {
		return set.policy.at
	}
	return set.now()
}

// protocols works out the versions for one authentication.
func (set *settings) protocols() (versionRange, error) {
	q := protocolRequest{
		enabled: set.enabled,
		min:     set.minVersion,
		max:     set.maxVersion,
		suites:  set.suites,
		ech:     len(set.base.EncryptedClientHelloConfigList) > 0,
		server:  set.server,
	}
	if q.enabled == ProtocolSystemDefault && q.min == 0 && q.max == 0 {
		q.enabled = SecurityProtocol()
	}
	return q.resolve()
}

// sessionKey names all that must be the same for a client's session to be resumed. certificates are the settings' own,
// but for a callback that New was given.
func (set *settings) sessionKey(host targetHost, allowed Protocols, certificates *clientCertificates) string {
	identity := set.identity
	if certificates.choose != nil {
		identity = certificates.identity()
	}
	// How certificates are judged too: a session brings what it was made with, so that one without a staple, say, would be refused
	// where a full handshake brings one.
	judged := strconv.Itoa(int(set.policy.revocationMode)) + " " + strconv.FormatUint(uint64(set.policy.ignore), 10)
	return strings.ToLower(host.ascii) + "|" + strconv.FormatUint(uint64(allowed), 10) + "|" + set.offer + "|" + judged + "|" + identity
}
