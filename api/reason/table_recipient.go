package reason

// recipientReasons are about one recipient: refused at RCPT where the edge
// knows by then, else found on delivery and said in a DSN.
func recipientReasons() []Reason {
	return []Reason{
		{
			Slug: RecipientAddressBad, Stages: []Stage{StageRcpt},
			Title:       "Recipient address not accepted",
			Sentence:    "Recipient address not accepted: {detail}",
			Explanation: "The recipient is not an address of the form name@domain. Quoted names, address literals and source routes are not accepted.",
			Reply:       Code{553, Enhanced{5, 1, 3}},
			Scope:       ScopeTenant, Exit: ExitFailure,
		},
		{
			// RFC 5321 4.5.3.1.10: 452, so that the client sends the rest in
			// another transaction.
			Slug: TooManyRecipients, Stages: []Stage{StageRcpt},
			Title:       "Too many recipients",
			Sentence:    "Too many recipients; at most {limit} are accepted in one message",
			Explanation: "One message may have so many recipients. Mail servers send the rest in another message by themselves.",
			Reply:       Code{452, Enhanced{4, 5, 3}},
			Retry:       true, Scope: ScopeTenant, Exit: ExitLimit,
		},
		{
			Slug: RecipientSuppressed, Stages: []Stage{StageRcpt},
			Title:        "Recipient suppressed",
			Sentence:     "Recipient {recipient} is on a suppression list",
			Explanation:  "Mail to this recipient is stopped because of bounces or complaints.",
			Reply:        Code{550, Enhanced{5, 7, 1}},
			NamesContact: true,
			Scope:        ScopeTenant, Exit: ExitFailure,
		},
		{
			// RFC 7505 4.2: 556 and 5.1.10 for a null MX.
			Slug: RecipientNullMX, Stages: []Stage{StageRcpt, StageDSN},
			Title:       "Recipient domain accepts no mail",
			Sentence:    "Recipient domain {domain} accepts no mail",
			Explanation: "The recipient domain says in the DNS that it accepts no mail (RFC 7505). Check the address.",
			Reply:       Code{556, Enhanced{5, 1, 10}},
			Scope:       ScopeTenant, Exit: ExitFailure,
		},
		{
			Slug: RecipientDomainUnknown, Stages: []Stage{StageRcpt, StageDSN},
			Title:       "Recipient domain does not exist",
			Sentence:    "Recipient domain {domain} does not exist",
			Explanation: "The recipient domain does not exist in the DNS. Check the address.",
			Reply:       Code{550, Enhanced{5, 1, 2}},
			Scope:       ScopeTenant, Exit: ExitFailure,
		},
		{
			Slug: DeliveryExpired, Stages: []Stage{StageDSN},
			Title:       "Delivery time ran out",
			Sentence:    "Could not be delivered to {recipient} in time: {detail}",
			Explanation: "The message was accepted and tried again and again until its lifetime ended; the last answer of the next mail server is in the notice.",
			Reply:       Code{Enhanced: Enhanced{5, 4, 7}},
			Charged:     true, Scope: ScopeTenant, Exit: ExitFailure,
		},
		{
			Slug: DeliveryRefused, Stages: []Stage{StageDSN},
			Title:       "Next server refused",
			Sentence:    "The next mail server refused {recipient}: {detail}",
			Explanation: "The message was accepted, and the next mail server refused it for good; its answer is in the notice.",
			Reply:       Code{Enhanced: Enhanced{5, 0, 0}},
			Charged:     true, Scope: ScopeTenant, Exit: ExitFailure,
		},
	}
}
