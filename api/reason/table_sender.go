package reason

// senderReasons answer who may send, and how much. They are given at RCPT, so
// that the log of a refusal names the recipient too.
func senderReasons() []Reason {
	return append(identityReasons(), allowanceReasons()...)
}

func identityReasons() []Reason {
	return []Reason{
		{
			Slug: SenderAddressBad, Stages: []Stage{StageMail},
			Title:       "Sender address not accepted",
			Sentence:    "Sender address not accepted: {detail}",
			Explanation: "The envelope sender is not an address of the form name@domain. Quoted names, address literals and source routes are not accepted.",
			Reply:       Code{553, Enhanced{5, 1, 7}},
			Scope:       ScopeTenant, Exit: ExitFailure,
		},
		{
			Slug: SenderDomainUnknown, Stages: []Stage{StageRcpt, StageData},
			Title:       "Sender domain not registered",
			Sentence:    "Sender domain {domain} is not registered for relaying",
			Explanation: "Only registered domains are relayed. Register the domain, or use a sender address of a registered one, in the envelope and in the From header.",
			Reply:       Code{550, Enhanced{5, 7, 1}},
			Alternatives: []Alternative{
				{
					When: WhenStale, Code: Code{451, Enhanced{4, 3, 0}},
					Sentence: "Cannot confirm just now that sender domain {domain} is registered for relaying; try again later",
				},
			},
			Scope: ScopeTenant, Exit: ExitFailure,
		},
		{
			Slug: IPNotAllowed, Stages: []Stage{StageRcpt, StageData},
			Title:       "Client address not active",
			Sentence:    "Relaying denied: client address {client} is not active for {domain}",
			Explanation: "The domain is registered, but this client address is not an active relay IP of it. Request the address as a relay IP, or have the requested one activated.",
			Reply:       Code{550, Enhanced{5, 7, 1}},
			Alternatives: []Alternative{
				{
					When: WhenStale, Code: Code{451, Enhanced{4, 3, 0}},
					Sentence: "Cannot confirm just now that client address {client} is active for {domain}; try again later",
				},
			},
			NamesContact: true,
			Scope:        ScopeTenant, Exit: ExitFailure,
		},
		{
			Slug: SenderNotOwned, Stages: []Stage{StageRcpt, StageData},
			Title:       "Sender address belongs to someone else",
			Sentence:    "{user} may not send as {sender}",
			Explanation: "A user may send from its own address and its aliases, or from every address of the domain where the domain says so. Add an alias or change the sender.",
			Reply:       Code{553, Enhanced{5, 7, 1}},
			Alternatives: []Alternative{
				{
					When: WhenStale, Code: Code{451, Enhanced{4, 3, 0}},
					Sentence: "Cannot confirm just now that {user} may send as {sender}; try again later",
				},
			},
			Scope: ScopeTenant, Exit: ExitFailure,
		},
	}
}

func allowanceReasons() []Reason {
	return []Reason{
		{
			// RFC 4954 has no code for an account that abuse has closed; 525
			// 5.7.13 is RFC 5248's "user account disabled".
			Slug: RelayDisabled, Stages: []Stage{StageRcpt, StageData},
			Title:       "Relaying disabled after abuse complaints",
			Sentence:    "Relaying is disabled for {subject} (abuse complaints)",
			Explanation: "Abuse complaints disabled relaying for this user, relay IP, domain or partner. Find and stop the cause, then ask the provider to enable it again.",
			Reply:       Code{550, Enhanced{5, 7, 1}},
			Alternatives: []Alternative{
				{When: ForUser, Code: Code{525, Enhanced{5, 7, 13}}},
				{
					When: WhenStale, Code: Code{451, Enhanced{4, 3, 0}},
					Sentence: "Relaying was disabled for {subject} (abuse complaints) when policy was last heard; try again later",
				},
			},
			NamesContact: true,
			Scope:        ScopeTenant, Exit: ExitFailure,
		},
		{
			Slug: RelaySuspended, Stages: []Stage{StageRcpt, StageData},
			Title:       "Relaying suspended",
			Sentence:    "Relaying is suspended for {subject}",
			Explanation: "The provider or the partner suspended relaying for this user, domain or partner. Mail is deferred at first and refused later.",
			Reply:       Code{450, Enhanced{4, 7, 1}},
			Alternatives: []Alternative{
				{When: Later, Code: Code{550, Enhanced{5, 7, 1}}},
			},
			NamesContact: true,
			Retry:        true, Scope: ScopeTenant, Exit: ExitFailure,
		},
		{
			Slug: QuotaReached, Stages: []Stage{StageRcpt, StageCommit},
			Title:       "Relay limit reached",
			Sentence:    "Relay limit reached for {domain}: {used} of {limit} {unit} today; resets {resets_at}",
			Explanation: "The domain has relayed as many messages as its limit for the day allows. The count starts again at the instant given. The limit follows from the licensed users; the provider can override it for a while.",
			Reply:       Code{450, Enhanced{4, 7, 1}},
			Alternatives: []Alternative{
				{When: ForUser, Code: Code{550, Enhanced{5, 7, 1}}},
			},
			HTTPStatus: 429,
			Retry:      true, Scope: ScopeTenant, Exit: ExitLimit,
		},
		{
			Slug: QuotaUnavailable, Stages: []Stage{StageRcpt, StageCommit},
			Title:       "Relay limit cannot be confirmed",
			Sentence:    "Cannot confirm the relay limit just now; try again later",
			Explanation: "The edge holds no units of the limit and cannot get any just now, so it does not know whether the limit is reached. Nothing is wrong with the mail; it goes through on a later try.",
			Reply:       Code{451, Enhanced{4, 3, 0}},
			Retry:       true, Scope: ScopePlatform, Exit: ExitUnavailable,
		},
		{
			Slug: PolicyStale, Stages: []Stage{StageRcpt, StageData},
			Title:       "Policy cannot be confirmed",
			Sentence:    "Cannot confirm the relaying policy of {domain} just now; try again later",
			Explanation: "The edge has not heard from the control plane for too long, or could not read part of the policy, and defers what it cannot decide.",
			Reply:       Code{451, Enhanced{4, 3, 0}},
			Retry:       true, Scope: ScopePlatform, Exit: ExitUnavailable,
		},
	}
}
