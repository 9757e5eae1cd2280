// Package display prints what SslStream's examples print of a stream.
package display

import (
	"crypto/x509"
	"fmt"
	"time"

	"github.com/sslstream/sslstream"
)

// Stream prints the security level, the security services, the stream's properties and both certificates.
func Stream(s *sslstream.Stream) {
	SecurityLevel(s)
	SecurityServices(s)
	StreamProperties(s)
	CertificateInformation(s)
}

// SecurityLevel prints what was negotiated.
func SecurityLevel(s *sslstream.Stream) { fmt.Println(s.Security()) }

// SecurityServices prints what the session protects.
func SecurityServices(s *sslstream.Stream) {
	fmt.Printf("Is authenticated: %v as server? %v\n", s.IsAuthenticated(), s.IsServer())
	fmt.Printf("Is mutually authenticated: %v\n", s.IsMutuallyAuthenticated())
	fmt.Printf("Is signed: %v\n", s.IsSigned())
	fmt.Printf("Is encrypted: %v\n", s.IsEncrypted())
}

// StreamProperties prints what the stream can do.
func StreamProperties(s *sslstream.Stream) {
	fmt.Printf("Can read: %v, write %v\n", s.CanRead(), s.CanWrite())
	fmt.Printf("Can timeout: %v\n", s.CanTimeout())
}

// CertificateInformation prints both certificates.
func CertificateInformation(s *sslstream.Stream) {
	fmt.Printf("Certificate revocation list checked: %v\n", s.CheckCertRevocationStatus())
	certificate("Local", s.LocalCertificate())
	certificate("Remote", s.RemoteCertificate())
}

func certificate(whose string, c *x509.Certificate) {
	if c == nil {
		fmt.Printf("%s certificate is null.\n", whose)
		return
	}
	fmt.Printf("%s cert was issued to %s and is valid from %s until %s.\n",
		whose, c.Subject, c.NotBefore.Format(time.DateTime), c.NotAfter.Format(time.DateTime))
}
