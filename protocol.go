package sslstream

import (
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/sslstream/sslstream/internal/syspolicy"
)

// Protocols is a set of protocol versions. It corresponds to SslProtocols and SecurityProtocolType and has
// their numbers. The zero value, ProtocolSystemDefault, leaves the choice to the system.
type Protocols uint32

// The versions by their .NET numbers. SSL 2 and SSL 3 exist to be named in an error: crypto/tls speaks
// neither (RFC 6176, RFC 7568).
const (
	// ProtocolSystemDefault is crypto/tls's own range, GODEBUG settings included, narrowed by MinProtocol and
	// MaxProtocol of the administrator's OpenSSL configuration.
	ProtocolSystemDefault Protocols = 0
	ProtocolSSL2          Protocols = 12
	ProtocolSSL3          Protocols = 48
	ProtocolTLS10         Protocols = 192   // RFC 2246
	ProtocolTLS11         Protocols = 768   // RFC 4346
	ProtocolTLS12         Protocols = 3072  // RFC 5246
	ProtocolTLS13         Protocols = 12288 // RFC 8446
)

const allTLS = ProtocolTLS10 | ProtocolTLS11 | ProtocolTLS12 | ProtocolTLS13

// protocolNames is in ascending order of version; version 0 marks what crypto/tls does not speak.
var protocolNames = []struct {
	protocol Protocols
	version  uint16
	name     string
	dotnet   string
}{
	{ProtocolSSL2, 0, "SSL2", "Ssl2"},
	{ProtocolSSL3, 0, "SSL3", "Ssl3"},
	{ProtocolTLS10, tls.VersionTLS10, "TLS10", "Tls"},
	{ProtocolTLS11, tls.VersionTLS11, "TLS11", "Tls11"},
	{ProtocolTLS12, tls.VersionTLS12, "TLS12", "Tls12"},
	{ProtocolTLS13, tls.VersionTLS13, "TLS13", "Tls13"},
}

// String names the versions in the set, as in "TLS12|TLS13", and the zero value "SystemDefault". Bits that
// belong to no version are appended as one hexadecimal number.
func (p Protocols) String() string {
	if p == ProtocolSystemDefault {
		return "SystemDefault"
	}
	var names []string
	for _, n := range protocolNames {
		if p&n.protocol == n.protocol {
			names = append(names, n.name)
			p &^= n.protocol
		}
	}
	if p != 0 {
		names = append(names, "0x"+strconv.FormatUint(uint64(p), 16))
	}
	return strings.Join(names, "|")
}

// MarshalText is String.
func (p Protocols) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads what MarshalText writes and what .NET writes, as in "Tls12, Tls13", "None" or "3072";
// case and white space do not matter. On an error p is unchanged.
func (p *Protocols) UnmarshalText(text []byte) error {
	var set Protocols
	for word := range strings.FieldsFuncSeq(string(text), func(r rune) bool { return r == '|' || r == ',' }) {
		one, ok := protocolByName(strings.TrimSpace(word))
		if !ok {
			return fmt.Errorf("sslstream: unknown protocol %q; write for example %q", strings.TrimSpace(word), ProtocolTLS12|ProtocolTLS13)
		}
		set |= one
	}
	if strings.Trim(string(text), "|, \t\r\n") == "" {
		return fmt.Errorf("sslstream: no protocol in %q; write %q for the default", text, ProtocolSystemDefault)
	}
	*p = set
	return nil
}

func protocolByName(word string) (Protocols, bool) {
	if strings.EqualFold(word, "SystemDefault") || strings.EqualFold(word, "None") {
		return ProtocolSystemDefault, true
	}
	if strings.EqualFold(word, "Default") { // SslProtocols' obsolete name for what was the default once
		return ProtocolSSL3 | ProtocolTLS10, true
	}
	for _, n := range protocolNames {
		if strings.EqualFold(word, n.name) || strings.EqualFold(word, n.dotnet) {
			return n.protocol, true
		}
	}
	number, err := strconv.ParseUint(word, 0, 32)
	return Protocols(number), err == nil
}

// has reports whether the TLS version is in the set.
func (p Protocols) has(version uint16) bool {
	one := protocolOf(version)
	return one != 0 && p&one == one
}

// versions lists the set's TLS versions in ascending order.
func (p Protocols) versions() []uint16 {
	var vs []uint16
	for _, n := range protocolNames {
		if n.version != 0 && p&n.protocol == n.protocol {
			vs = append(vs, n.version)
		}
	}
	return vs
}

// protocolOf is the set of that one crypto/tls version; 0 for one that has no name here.
func protocolOf(version uint16) Protocols {
	for _, n := range protocolNames {
		if n.version == version && version != 0 {
			return n.protocol
		}
	}
	return 0
}

// protocolsOf is the set of the versions, without what has no name here.
func protocolsOf(versions []uint16) Protocols {
	var p Protocols
	for _, v := range versions {
		p |= protocolOf(v)
	}
	return p
}

// checkSupported refuses what crypto/tls cannot speak. Half of a version's bits is no version: .NET's enum
// knows no such value either.
func (p Protocols) checkSupported() error {
	rest := p
	for _, v := range p.versions() {
		rest &^= protocolOf(v)
	}
	if rest == 0 {
		return nil
	}
	return fmt.Errorf("sslstream: the protocol %v is not supported, only TLS10, TLS11, TLS12 and TLS13 are: %w", rest, errors.ErrUnsupported)
}

var securityProtocol struct {
	sync.Mutex
	value Protocols
}

// SecurityProtocol returns the default for every authentication whose EnabledProtocols is zero. It
// corresponds to ServicePointManager.SecurityProtocol, starts as ProtocolSystemDefault and is guarded by a mutex.
// Each authentication reads it once: connections made before a change keep what they have.
func SecurityProtocol() Protocols {
	securityProtocol.Lock()
	defer securityProtocol.Unlock()
	return securityProtocol.value
}

// SetSecurityProtocol sets what SecurityProtocol returns. A bit outside TLS 1.0 to TLS 1.3 is refused with an
// error that wraps errors.ErrUnsupported, and the value stays as it was.
//
// A set with a hole (ProtocolTLS10|ProtocolTLS12) is honoured: the version in the hole is never used. A server
// picks the best common one; a client can only refuse a server that picked the hole.
func SetSecurityProtocol(p Protocols) error {
	if err := p.checkSupported(); err != nil {
		return err
	}
	securityProtocol.Lock()
	defer securityProtocol.Unlock()
	securityProtocol.value = p
	return nil
}

// versionRange is one authentication's answer to "which versions": the bounds for crypto/tls (0: its own) and
// the set that counts, which may have holes that crypto/tls cannot express.
type versionRange struct {
	min, max uint16
	allowed  Protocols
}

// protocolRequest is what the answer depends on.
type protocolRequest struct {
	enabled  Protocols // EnabledProtocols, or SecurityProtocol()
	min, max uint16    // a TLSConfig's bounds; if either is set they stand in for enabled
	suites   []uint16
	ech      bool // the client encrypts its hello
	server   bool
}

// resolve works out the versions for one authentication.
func (q protocolRequest) resolve() (versionRange, error) {
	r := versionRange{allowed: allTLS}
	asked := q.enabled.String()
	switch {
	case q.min != 0 || q.max != 0:
		asked = "TLSConfig's MinVersion and MaxVersion"
		for _, v := range []uint16{q.min, q.max} {
			if v != 0 && protocolOf(v) == 0 {
				return r, fmt.Errorf("sslstream: TLSConfig asks for %s, only TLS 1.0 to TLS 1.3 are supported: %w", tls.VersionName(v), errors.ErrUnsupported)
			}
		}
		r.bound(q.min, q.max)
	case q.enabled == ProtocolSystemDefault:
		if system := syspolicy.Current(); system.Min != 0 || system.Max != 0 {
			asked += ", narrowed by the administrator's OpenSSL configuration"
			r.bound(system.Min, system.Max)
		}
		// A minimum below crypto/tls's own must not be handed over: it would widen the range.
		if r.min < tls.VersionTLS12 {
			r.min = 0
		}
	default:
		if err := q.enabled.checkSupported(); err != nil {
			return r, err
		}
		versions := q.enabled.versions()
		r = versionRange{min: versions[0], max: versions[len(versions)-1], allowed: q.enabled}
	}
	if q.ech {
		asked += ", narrowed to TLS 1.3, which Encrypted Client Hello needs"
		r.restrict(ProtocolTLS13)
	}
	if q.suites != nil {
		asked += ", narrowed to what the CipherSuites can be used with"
		r.restrict(protocolsOfSuites(q.suites))
	}
	// Where the minimum is left to crypto/tls it is TLS 1.2, but for servers under GODEBUG=tls10server=1.
	if r.allowed == 0 || r.min == 0 && !q.server && r.max != 0 && r.max < tls.VersionTLS12 {
		return r, fmt.Errorf("sslstream: no protocol is left of %s; set EnabledProtocols to one that is", asked)
	}
	return r, nil
}

// bound narrows the range to [lowest, highest], where 0 is no bound.
func (r *versionRange) bound(lowest, highest uint16) {
	r.min, r.max = lowest, highest
	for _, v := range r.allowed.versions() {
		if v < lowest || highest != 0 && v > highest {
			r.allowed &^= protocolOf(v)
		}
	}
}

// restrict narrows the range to the versions in p.
func (r *versionRange) restrict(p Protocols) {
	r.allowed &= p
	versions := r.allowed.versions()
	if len(versions) == 0 {
		return
	}
	if lowest := versions[0]; lowest > tls.VersionTLS12 || r.min != 0 {
		r.min = max(r.min, lowest)
	}
	if highest := versions[len(versions)-1]; r.max == 0 && highest < tls.VersionTLS13 || r.max > highest {
		r.max = highest
	}
}

// aroundHole returns the version to insist on with a client whose best offer within the bounds is one that is not
// allowed: the best that is, or where there is none one that makes the handshake fail for want of a common version.
func (r versionRange) aroundHole(offered []uint16) (version uint16, ok bool) {
	var best, bestAllowed uint16
	for _, v := range offered {
		if protocolOf(v) == 0 || v < r.min || r.max != 0 && v > r.max {
			continue
		}
		best = max(best, v)
		if r.allowed.has(v) {
			bestAllowed = max(bestAllowed, v)
		}
	}
	if best == bestAllowed {
		return 0, false
	}
	if bestAllowed == 0 {
		versions := r.allowed.versions()
		return versions[len(versions)-1], true
	}
	return bestAllowed, true
}

// suiteInfo says what a cipher suite is made of.
type suiteInfo struct {
	cipher   CipherAlgorithm
	hash     HashAlgorithm     // the MAC's; of a suite that needs none (AEAD) the handshake's
	exchange ExchangeAlgorithm // None: TLS 1.3, where the group says it
}

// suites is every suite that crypto/tls knows; a test holds it against tls.CipherSuites and
// tls.InsecureCipherSuites.
var suites = map[uint16]suiteInfo{
	tls.TLS_AES_128_GCM_SHA256:       {CipherAlgorithmAES128, HashAlgorithmSHA256, ExchangeAlgorithmNone},
	tls.TLS_AES_256_GCM_SHA384:       {CipherAlgorithmAES256, HashAlgorithmSHA384, ExchangeAlgorithmNone},
	tls.TLS_CHACHA20_POLY1305_SHA256: {CipherAlgorithmChaCha20, HashAlgorithmSHA256, ExchangeAlgorithmNone},

	tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA:          {CipherAlgorithmAES128, HashAlgorithmSHA1, ExchangeAlgorithmECDHE},
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA:          {CipherAlgorithmAES256, HashAlgorithmSHA1, ExchangeAlgorithmECDHE},
	tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA:            {CipherAlgorithmAES128, HashAlgorithmSHA1, ExchangeAlgorithmECDHE},
	tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA:            {CipherAlgorithmAES256, HashAlgorithmSHA1, ExchangeAlgorithmECDHE},
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256:       {CipherAlgorithmAES128, HashAlgorithmSHA256, ExchangeAlgorithmECDHE},
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384:       {CipherAlgorithmAES256, HashAlgorithmSHA384, ExchangeAlgorithmECDHE},
	tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256:         {CipherAlgorithmAES128, HashAlgorithmSHA256, ExchangeAlgorithmECDHE},
	tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384:         {CipherAlgorithmAES256, HashAlgorithmSHA384, ExchangeAlgorithmECDHE},
	tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256:   {CipherAlgorithmChaCha20, HashAlgorithmSHA256, ExchangeAlgorithmECDHE},
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256: {CipherAlgorithmChaCha20, HashAlgorithmSHA256, ExchangeAlgorithmECDHE},

	tls.TLS_RSA_WITH_RC4_128_SHA:                {CipherAlgorithmRC4, HashAlgorithmSHA1, ExchangeAlgorithmRSA},
	tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA:           {CipherAlgorithmTripleDES, HashAlgorithmSHA1, ExchangeAlgorithmRSA},
	tls.TLS_RSA_WITH_AES_128_CBC_SHA:            {CipherAlgorithmAES128, HashAlgorithmSHA1, ExchangeAlgorithmRSA},
	tls.TLS_RSA_WITH_AES_256_CBC_SHA:            {CipherAlgorithmAES256, HashAlgorithmSHA1, ExchangeAlgorithmRSA},
	tls.TLS_RSA_WITH_AES_128_CBC_SHA256:         {CipherAlgorithmAES128, HashAlgorithmSHA256, ExchangeAlgorithmRSA},
	tls.TLS_RSA_WITH_AES_128_GCM_SHA256:         {CipherAlgorithmAES128, HashAlgorithmSHA256, ExchangeAlgorithmRSA},
	tls.TLS_RSA_WITH_AES_256_GCM_SHA384:         {CipherAlgorithmAES256, HashAlgorithmSHA384, ExchangeAlgorithmRSA},
	tls.TLS_ECDHE_ECDSA_WITH_RC4_128_SHA:        {CipherAlgorithmRC4, HashAlgorithmSHA1, ExchangeAlgorithmECDHE},
	tls.TLS_ECDHE_RSA_WITH_RC4_128_SHA:          {CipherAlgorithmRC4, HashAlgorithmSHA1, ExchangeAlgorithmECDHE},
	tls.TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA:     {CipherAlgorithmTripleDES, HashAlgorithmSHA1, ExchangeAlgorithmECDHE},
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256: {CipherAlgorithmAES128, HashAlgorithmSHA256, ExchangeAlgorithmECDHE},
	tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256:   {CipherAlgorithmAES128, HashAlgorithmSHA256, ExchangeAlgorithmECDHE},
}

// keyExchange says how the keys were agreed on: by the group where there is one, else as the suite says, by
// encryption to the server's RSA key. The strength is 0 where the group is not known yet.
func keyExchange(suite uint16, group tls.CurveID, server *x509.Certificate) (ExchangeAlgorithm, int) {
	switch group {
	case tls.X25519:
		return ExchangeAlgorithmECDHE, 255
	case tls.CurveP256:
		return ExchangeAlgorithmECDHE, 256
	case tls.CurveP384:
		return ExchangeAlgorithmECDHE, 384
	case tls.CurveP521:
		return ExchangeAlgorithmECDHE, 521
	case tls.X25519MLKEM768:
		return ExchangeAlgorithmHybridMLKEM, 255
	case tls.SecP256r1MLKEM768:
		return ExchangeAlgorithmHybridMLKEM, 256
	case tls.SecP384r1MLKEM1024:
		return ExchangeAlgorithmHybridMLKEM, 384
	}
	exchange := suites[suite].exchange
	if exchange == ExchangeAlgorithmRSA && server != nil {
		if key, ok := server.PublicKey.(*rsa.PublicKey); ok {
			return exchange, key.N.BitLen()
		}
	}
	return exchange, 0
}

// checkSuites refuses a list that crypto/tls cannot honour.
func checkSuites(list []uint16) error {
	if list != nil && len(list) == 0 {
		return errors.New("sslstream: CipherSuites is empty but not nil, which leaves no cipher suite; use nil for crypto/tls's own choice")
	}
	for _, id := range list {
		if _, ok := suites[id]; !ok {
			return fmt.Errorf("sslstream: CipherSuites: crypto/tls does not implement %s; take it out of the list: %w", tls.CipherSuiteName(id), errors.ErrUnsupported)
		}
	}
	return nil
}

// protocolsOfSuites is the set of versions that can use any of the suites.
func protocolsOfSuites(list []uint16) Protocols {
	var p Protocols
	for _, s := range slices.Concat(tls.CipherSuites(), tls.InsecureCipherSuites()) {
		if slices.Contains(list, s.ID) {
			p |= protocolsOf(s.SupportedVersions)
		}
	}
	return p
}

// CipherAlgorithm names a cipher. It corresponds to CipherAlgorithmType and has its numbers, but for
// ChaCha20, which .NET does not name. The zero value is CipherAlgorithmNone: nothing negotiated.
type CipherAlgorithm int

// HashAlgorithm names a hash. It corresponds to HashAlgorithmType and has its numbers. The zero value is
// HashAlgorithmNone: nothing negotiated.
type HashAlgorithm int

// ExchangeAlgorithm names a key exchange. It corresponds to ExchangeAlgorithmType and has its numbers
// (ECDHE's is Schannel's), but for HybridMLKEM, which .NET does not name. The zero value is
// ExchangeAlgorithmNone: nothing negotiated.
type ExchangeAlgorithm int

// The algorithms by their .NET numbers.
const (
	CipherAlgorithmNone      CipherAlgorithm = 0
	CipherAlgorithmChaCha20  CipherAlgorithm = 1 // RFC 8439, with Poly1305
	CipherAlgorithmTripleDES CipherAlgorithm = 26115
	CipherAlgorithmAES128    CipherAlgorithm = 26126
	CipherAlgorithmAES256    CipherAlgorithm = 26128
	CipherAlgorithmRC4       CipherAlgorithm = 26625

	HashAlgorithmNone   HashAlgorithm = 0
	HashAlgorithmSHA1   HashAlgorithm = 32772
	HashAlgorithmSHA256 HashAlgorithm = 32780
	HashAlgorithmSHA384 HashAlgorithm = 32781

	ExchangeAlgorithmNone        ExchangeAlgorithm = 0
	ExchangeAlgorithmHybridMLKEM ExchangeAlgorithm = 1 // ML-KEM together with an elliptic curve
	ExchangeAlgorithmRSA         ExchangeAlgorithm = 41984
	ExchangeAlgorithmECDHE       ExchangeAlgorithm = 44550
)

// String is the algorithm's .NET name, or its number where it has none.
func (a CipherAlgorithm) String() string {
	switch a {
	case CipherAlgorithmNone:
		return "None"
	case CipherAlgorithmChaCha20:
		return "ChaCha20"
	case CipherAlgorithmTripleDES:
		return "TripleDes"
	case CipherAlgorithmAES128:
		return "Aes128"
	case CipherAlgorithmAES256:
		return "Aes256"
	case CipherAlgorithmRC4:
		return "Rc4"
	}
	return strconv.Itoa(int(a))
}

// strength is the length of the key in bits.
func (a CipherAlgorithm) strength() int {
	switch a {
	case CipherAlgorithmAES128, CipherAlgorithmRC4:
		return 128
	case CipherAlgorithmTripleDES:
		return 168
	case CipherAlgorithmAES256, CipherAlgorithmChaCha20:
		return 256
	}
	return 0
}

// String is the algorithm's .NET name, or its number where it has none.
func (a HashAlgorithm) String() string {
	switch a {
	case HashAlgorithmNone:
		return "None"
	case HashAlgorithmSHA1:
		return "Sha1"
	case HashAlgorithmSHA256:
		return "Sha256"
	case HashAlgorithmSHA384:
		return "Sha384"
	}
	return strconv.Itoa(int(a))
}

// strength is the length of the hash in bits.
func (a HashAlgorithm) strength() int {
	switch a {
	case HashAlgorithmSHA1:
		return 160
	case HashAlgorithmSHA256:
		return 256
	case HashAlgorithmSHA384:
		return 384
	}
	return 0
}

// String is the algorithm's .NET name, or its number where it has none.
func (a ExchangeAlgorithm) String() string {
	switch a {
	case ExchangeAlgorithmNone:
		return "None"
	case ExchangeAlgorithmHybridMLKEM:
		return "HybridMLKEM"
	case ExchangeAlgorithmRSA:
		return "RsaKeyX"
	case ExchangeAlgorithmECDHE:
		return "ECDHE"
	}
	return strconv.Itoa(int(a))
}

// flagNames prints a set of one-bit flags, in ascending order, with unknown ones as one hexadecimal number.
func flagNames(flags uint32, names map[uint32]string) string {
	if flags == 0 {
		return "None"
	}
	var words []string
	for rest := flags; rest != 0; rest &= rest - 1 {
		bit := uint32(1) << bits.TrailingZeros32(rest)
		if name, ok := names[bit]; ok {
			words = append(words, name)
			flags &^= bit
		}
	}
	if flags != 0 {
		words = append(words, "0x"+strconv.FormatUint(uint64(flags), 16))
	}
	return strings.Join(words, "|")
}
